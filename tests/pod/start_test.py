"""Several hosts begin a run, and end it, with what they agree on; real processes."""

from __future__ import annotations

import signal
import sys
import threading

import pytest

from launch.podsim import SimulatedPod
from tests.conftest import REPOSITORY
from tests.pod import stopped_run
from training import stop
from training.checkpoint.folder import CheckpointFolder
from training.errors import EXIT_USAGE

pytestmark = [pytest.mark.pod, pytest.mark.slow]


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Two hosts that train, in a phase of `stopped_run`; (pod, logs of the hosts)."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    (tmp_path / "toy.py").write_text(stopped_run.RECIPE)

    def run(phase: str, *more: str) -> tuple[SimulatedPod, list]:
        command = [
            sys.executable, "-m", "tests.pod.stopped_run", phase, "train",
            "--config", f"{tmp_path / 'toy.py'}", "--workdir", f"{tmp_path / 'run'}", *more,
        ]  # fmt: skip
        pod = SimulatedPod(command, 2, 1, tmp_path / "logs")
        return pod, [tmp_path / "logs" / f"host-{host}.log" for host in range(2)]

    return run


def test_hosts_that_would_run_different_programs_are_refused_at_the_start(start):
    pod, logs = start("own-program")
    pod.wait(60.0)
    assert [host.process.returncode for host in pod.hosts] == [EXIT_USAGE, EXIT_USAGE]
    for log in logs:
        assert "the program of the step on host 1 differs from host 0" in log.read_text()


def test_all_hosts_of_a_stopped_run_end_with_the_code_that_was_asked_for(
    start, tmp_path, monkeypatch
):
    monkeypatch.setenv(stop.PREEMPTED_CODE, "143")
    pod, logs = start("update", "--config.total.updates=5000")

    def tell() -> None:
        while "in update" not in logs[0].read_text():
            if pod.hosts[0].process.poll() is not None:
                return
            threading.Event().wait(0.05)
        pod.send(signal.SIGTERM, 1)

    threading.Thread(target=tell, daemon=True).start()
    pod.wait(60.0)
    assert [host.process.returncode for host in pod.hosts] == [143, 143]
    assert (tmp_path / "run" / "PREEMPTED").exists()
    assert len(CheckpointFolder(tmp_path / "run").steps()) >= 1
