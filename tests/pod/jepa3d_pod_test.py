"""V-JEPA3D on a simulated pod: one host is told to stop, and the run goes on on other layouts."""

from __future__ import annotations

import re
import shutil
import signal
import sys
import threading
import time

import jax
import pytest

import training.loop
from launch.podsim import SimulatedPod
from tests.conftest import REPOSITORY
from tests.smoke.commands import RECIPE, losses, prepare_synthetic
from training.checkpoint.store import CheckpointReader
from training.mesh import make_mesh
from training.registry import load_config, make_task

pytestmark = pytest.mark.pod

TOTAL = 60
CHANGES = (
    "mask_preset=mask06",
    f"total.updates={TOTAL}",
    "evaluation.at_start=False",
    f"evaluation.every.updates={TOTAL}",
    f"checkpoint.every.updates={TOTAL}",
)
COMPARED = 12  # updates after the resume; later ones differ by more than rounding


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    records = prepare_synthetic(tmp_path_factory.mktemp("oct"), participants=4)
    path = tmp_path_factory.mktemp("recipe") / "tiny.py"
    path.write_text(RECIPE)
    return f"{path}:{records}"


@pytest.fixture
def train_on(recipe, monkeypatch):
    """Trains in this process on some of its devices."""

    def run(devices, workdir):
        few = jax.devices()[:devices]
        monkeypatch.setattr(training.loop, "make_mesh", lambda config: make_mesh(config, few))
        config = load_config(recipe, CHANGES)
        assert training.loop.fit(make_task(config), workdir) == "done"
        return losses(workdir)

    return run


def run_pod(recipe, workdir, logs, stop_after):
    """2 hosts x 2 chips until SIGTERM to host 1 after a step; exit codes and logs of the hosts."""
    command = [sys.executable, "-m", "launch.cli", "train", "--config", recipe]
    command += ["--workdir", str(workdir), *(f"--config.{change}" for change in CHANGES)]
    pod = SimulatedPod(command, 2, 2, logs)
    alarm = threading.Timer(200, pod.send, [signal.SIGKILL])
    alarm.start()
    log = logs / "host-0.log"
    while any(host.process.poll() is None for host in pod.hosts):
        if log.exists() and re.search(rf"^step +{stop_after}/", log.read_text(), re.MULTILINE):
            pod.send(signal.SIGTERM, host=1)
            break
        time.sleep(0.02)
    pod.wait(grace=60)
    alarm.cancel()
    codes = [host.process.returncode for host in pod.hosts]
    return codes, [(logs / f"host-{index}.log").read_text() for index in range(2)]


def test_a_pod_stopped_by_sigterm_to_one_host_goes_on_anywhere_with_the_same_losses(
    recipe, train_on, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    # The hosts' programs run for a second: compiling them well would cost more.
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    monkeypatch.setenv("XLA_FLAGS", flags)
    codes, logs = run_pod(recipe, tmp_path / "pod", tmp_path / "logs", stop_after=3)
    assert codes == [0, 0], logs
    saved = int((tmp_path / "pod" / "PREEMPTED").read_text())
    assert CheckpointReader(tmp_path / "pod").steps() == [saved] and 3 < saved < TOTAL - COMPARED
    assert f"asked to stop: all is saved up to step {saved}" in logs[0]
    assert not (tmp_path / "pod" / "DONE").exists()

    whole = train_on(1, tmp_path / "whole")
    on_pod = losses(tmp_path / "pod")
    assert list(on_pod) == list(range(1, saved + 1))
    for step in range(1, min(saved, COMPARED) + 1):
        assert on_pod[step] == pytest.approx(whole[step], rel=1e-4), step
    for devices in (1, 4):
        copy = tmp_path / f"on-{devices}"
        shutil.copytree(tmp_path / "pod", copy)
        continued = train_on(devices, copy)
        assert list(continued) == list(range(1, TOTAL + 1))
        for step in range(saved + 1, saved + 1 + COMPARED):
            assert continued[step] == pytest.approx(whole[step], rel=1e-4), (devices, step)
        assert (copy / "DONE").exists() and not (copy / "PREEMPTED").exists()
