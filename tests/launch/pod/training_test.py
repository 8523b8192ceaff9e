"""A real training on a slice of two workers: each a process of JAX, found by the fake gcloud."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from launch.podsim import free_port
from tests.smoke.commands import RECIPE, losses, prepare_synthetic
from tests.smoke.conftest import REPOSITORY
from training.checkpoint.store import CheckpointReader

# Real Python in place of the stand-in: a host with two devices of the CPU.
PYTHON = """#!/bin/bash
[ "$1" = -V ] && exec {python} -V
export JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=2 TPU_SKIP_MDS_QUERY=1
export PODVISION_COORDINATOR=127.0.0.1:{port} PODVISION_NUM_PROCESSES=2 OMP_NUM_THREADS=1
export PODVISION_PROCESS_ID=$TPU_WORKER_ID HOME={home} PYTHONPATH=$PWD
exec {python} "$@"
"""


def until(condition) -> None:
    """Waits for what another process does; two of them compile on a machine that may be busy."""
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.2)
    raise AssertionError("it did not come to that within minutes")


@pytest.mark.slow
def test_a_training_is_started_stopped_and_taken_up_again_on_both_workers(cloud, tmp_path):
    if not (REPOSITORY / ".git").exists():
        pytest.skip("what is pushed is a commit, and this is no repository")
    records = prepare_synthetic(tmp_path / "oct", participants=4)
    (tmp_path / "tiny.py").write_text(RECIPE)
    workdir = tmp_path / "run"
    python = cloud.folder / "template" / ".pod" / "venv" / "bin" / "python"
    text = PYTHON.format(python=sys.executable, port=free_port(), home=os.environ["HOME"])
    python.write_text(text)
    cloud.ready("")
    # The program itself in place of the small repository.
    cloud.source = REPOSITORY
    cloud("push", "--allow-dirty")
    changes = "--config.total.updates=40 --config.checkpoint.every.updates=40"
    job = f"train --config {tmp_path / 'tiny.py'}:{records} --workdir {workdir} {changes}"
    cloud("start", f"--command={job}")
    until(lambda: (workdir / "metrics.jsonl").exists() and losses(workdir))
    said = cloud("stop")
    assert "worker 0: stopped, exit code 0" in said and "worker 1: stopped, exit code 0" in said
    saved = CheckpointReader(workdir).latest()
    assert saved is not None and 1 <= saved < 40
    assert "asked to stop" in cloud("status")
    cloud("start", f"--command={job}")
    until(lambda: (workdir / "DONE").exists() and "running" not in cloud("status"))
    assert "it is done" in cloud("status")
    assert sorted(losses(workdir)) == list(range(1, 41))
    log = (cloud.home(1) / ".pod" / "run" / "attempt-2" / "log").read_text()
    assert f"{saved}" in log
    assert subprocess.run(["pgrep", "-f", str(workdir)], capture_output=True).returncode == 1
