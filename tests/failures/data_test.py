"""Failures 5 and 23: every process reads the same rows; training without an overfit test."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.failures.toy_run import CONFIG, ToyRun
from tests.training.toy import ToyTask
from training.config import Duration, EvaluationConfig
from training.errors import GuardStop
from training.loop import fit
from training.mesh import Layout
from training.overfit import overfit, write_verdict
from training.task import with_config

PROCESS = """
import sys
rank, port, fault = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "fault"
import jax
jax.distributed.initialize(f"localhost:{port}", 2, rank, cluster_detection_method="deactivate")
import numpy as np
from tests.failures.toy_run import ToyRun
from training.config import MeshConfig
from training.errors import GuardStop
from training.mesh import Layout
if fault:
    # LOCAL_RANK defaulted to 0 on every worker: each reads the rows of the first.
    Layout.rows = lambda self, batch_size: np.arange(batch_size // 2)
run = ToyRun(mesh=MeshConfig())
try:
    run.train(2)
    print("trained", [round(loss, 6) for loss in run.column("loss")], flush=True)
except GuardStop as error:
    print("stopped", error, flush=True)
"""


def two_processes(fault):
    """The last line that each of two processes with two devices prints."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), port, fault],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs):
        assert process.returncode == 0, errors[-3000:]
    return [out.strip().splitlines()[-1] for out, _ in outputs]


@pytest.mark.pod
def test_5_processes_that_all_read_the_rows_of_the_first_are_stopped_before_any_update():
    for line in two_processes("fault"):
        assert line.startswith("stopped 8 of the 16 examples of the global batch are read by more")
        assert "every process must read its own rows" in line


@pytest.mark.pod
def test_5_two_processes_with_rows_of_their_own_train_as_one_does():
    first, second = two_processes("healthy")
    one = [round(loss, 6) for loss in ToyRun().train(2).column("loss")]
    assert first == second and first.startswith("trained")
    losses = [float(x) for x in first.removeprefix("trained [").rstrip("]").split(",")]
    assert losses == pytest.approx(one, rel=1e-4)


def test_5_rows_that_repeat_inside_one_process_are_stopped_too(monkeypatch):
    monkeypatch.setattr(Layout, "rows", lambda self, size: np.tile(np.arange(size // 2), 2))
    with pytest.raises(GuardStop, match="unique-ids"):
        ToyRun().train(1)


class MutedTask(ToyTask):
    """Trains without complaint, but the targets never enter the loss."""

    def loss(self, params, context, batch, key):
        return super().loss(params, context, {**batch, "y": batch["y"] * 0}, key)


def verdicts(task):
    said = []
    return overfit(with_config(task, CONFIG), 4, 200, said.append)


def test_23_the_overfit_test_passes_a_task_that_can_learn():
    assert all(verdict.passed for verdict in verdicts(ToyTask()))


def test_23_the_overfit_test_fails_a_task_whose_loss_falls_but_which_does_not_learn():
    failed = {verdict.name for verdict in verdicts(MutedTask()) if not verdict.passed}
    assert "overfit" in failed


def test_23_a_run_without_an_overfit_test_says_so_and_one_with_it_shows_its_verdict(tmp_path):
    config = dataclasses.replace(
        CONFIG,
        total=Duration(updates=2),
        evaluation=EvaluationConfig(every=Duration(updates=2), batch_size=8),
    )
    assert fit(ToyTask(config), tmp_path / "without") == "done"
    row = overfit_row(tmp_path / "without")
    assert row["checked"] == 0 and row["sentence"].startswith("no verdict of podvision overfit")
    assert "Never ran" in (tmp_path / "without" / "report.html").read_text()

    failed = overfit(MutedTask(CONFIG), 4, 20, print)
    write_verdict(tmp_path / "with", failed)
    assert fit(ToyTask(config), tmp_path / "with") == "done"
    row = overfit_row(tmp_path / "with")
    assert row["warning"] and not row["passed"] and "needed below 0.01" in row["sentence"]


def overfit_row(workdir):
    rows = json.loads((workdir / "guards.json").read_text())
    return next(row for row in rows if row["name"] == "overfit")
