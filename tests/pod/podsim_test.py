"""Several real processes as hosts: saves, restores on other layouts, signals and crashes."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from launch.podsim import SimulatedPod
from training.checkpoint.folder import CheckpointFolder
from training.errors import EXIT_USAGE

pytestmark = pytest.mark.pod

WORKER = Path(__file__).with_name("worker.py")
REPOSITORY = WORKER.parents[2]
TIMEOUT = 100.0


@dataclass
class Outcome:
    """How a simulated pod ended."""

    code: int
    codes: list[int]
    logs: list[str]
    seconds_after_event: float = 0.0
    timed_out: bool = False

    def numbers(self, pattern: str) -> list[list[int]]:
        """For each host, the numbers that a pattern finds in its output."""
        return [[int(number) for number in re.findall(pattern, log)] for log in self.logs]


@dataclass
class Event:
    """Something done to a running pod as soon as a host has printed a line."""

    when: str
    action: Callable[[SimulatedPod], None]
    host: int = 0
    at: float = field(default=0.0, init=False)


@pytest.fixture
def simulate(tmp_path, monkeypatch):
    """Runs the worker on `hosts` x `chips` in the work folder `tmp_path/run`."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("PODVISION_HEARTBEAT_SECONDS", "10")

    def run(
        hosts: int, chips: int, *arguments: str, event: Event | None = None, grace: float = 60.0
    ) -> Outcome:
        logs = tmp_path / f"logs-{time.monotonic_ns()}"
        command = [sys.executable, str(WORKER), str(tmp_path / "run"), *arguments]
        pod = SimulatedPod(command, hosts, chips, logs)
        alarm = threading.Timer(TIMEOUT, pod.send, [signal.SIGKILL])
        alarm.start()
        if event:
            threading.Thread(target=_watch, args=(pod, event), daemon=True).start()
        code = pod.wait(grace)
        timed_out = alarm.finished.is_set()
        alarm.cancel()
        return Outcome(
            code,
            [host.process.returncode for host in pod.hosts],
            [(logs / f"host-{index}.log").read_text() for index in range(hosts)],
            time.monotonic() - event.at if event else 0.0,
            timed_out,
        )

    return run


def _watch(pod: SimulatedPod, event: Event) -> None:
    log = pod.logs / f"host-{event.host}.log"
    while not (log.exists() and event.when in log.read_text()):
        if all(host.process.poll() is not None for host in pod.hosts):
            return
        time.sleep(0.02)
    event.at = time.monotonic()
    event.action(pod)


def send(number: int, host: int) -> Callable[[SimulatedPod], None]:
    return lambda pod: pod.send(number, host)


def steps_in(tmp_path: Path) -> Sequence[int]:
    return CheckpointFolder(tmp_path / "run").steps()


def sums(log: str) -> dict[int, float]:
    return {int(step): float(value) for step, value in re.findall(r"step (\d+) sum (\S+)", log)}


def test_a_run_continues_on_any_other_layout(simulate, tmp_path):
    whole = sums(simulate(1, 1, "15").logs[0])
    (tmp_path / "run").rename(tmp_path / "whole")
    assert simulate(2, 2, "5").codes == [0, 0]
    for layout, steps in (((1, 1), "10"), ((1, 4), "15")):
        outcome = simulate(*layout, steps)
        assert outcome.code == 0
        start = int(steps) - 5
        assert outcome.numbers(r"restored (\d+)") == [[start]]
        assert outcome.numbers(r"position (\d+)") == [[start * 8]]
        for step, value in sums(outcome.logs[0]).items():
            assert value == pytest.approx(whole[step], rel=1e-6)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_host_saves_one_common_step_and_ends_well(simulate, tmp_path, number):
    event = Event("step 3 ", send(number, 1))
    # Steps that jump by 3, as with several updates in one dispatch, must not miss the stop.
    steps = ("3000", "--stride", "3", "--every", "99999", "--pause", "0.02")
    outcome = simulate(2, 2, *steps, event=event)
    assert outcome.codes == [0, 0]
    saved = outcome.numbers(r"saving (\d+)")
    assert saved[0] == saved[1]
    assert len(saved[0]) == 1
    assert steps_in(tmp_path) == saved[0]
    assert outcome.numbers(r"preempted latest (\d+)") == saved
    assert outcome.seconds_after_event < 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_a_single_process_saves_and_ends_well(simulate, tmp_path, number):
    event = Event("step 3 ", send(number, 0))
    outcome = simulate(1, 1, "5000", "--every", "9999", "--pause", "0.02", event=event)
    assert outcome.codes == [0]
    assert outcome.numbers(r"preempted latest (\d+)") == [list(steps_in(tmp_path))]


def test_a_killed_host_ends_the_others_and_leaves_a_whole_latest(simulate, tmp_path):
    event = Event("saving 6\n", send(signal.SIGKILL, 1))
    outcome = simulate(2, 2, "5000", "--every", "2", "--pause", "0.02", event=event)
    assert outcome.code == 128 + signal.SIGKILL
    assert 0 not in outcome.codes
    assert outcome.seconds_after_event < 60
    assert not outcome.timed_out
    latest = max(steps_in(tmp_path))
    assert latest >= 4
    resumed = simulate(1, 2, str(latest + 2))
    assert resumed.code == 0
    assert resumed.numbers(r"restored (\d+)") == [[latest]]


def test_a_save_killed_in_the_middle_is_ignored_and_cleared(simulate, tmp_path):
    killed = simulate(
        2, 2, "40", "--every", "20", "--width", "2048",
        event=Event("saving 40", lambda pod: pod.send(signal.SIGKILL)),
    )  # fmt: skip
    assert killed.codes == [-signal.SIGKILL] * 2
    folder = tmp_path / "run" / "checkpoints"
    assert any("tmp" in path.name for path in folder.iterdir()), os.listdir(folder)
    assert steps_in(tmp_path) == [20]
    resumed = simulate(2, 2, "25", "--width", "2048")
    assert resumed.codes == [0, 0]
    assert resumed.numbers(r"restored (\d+)") == [[20], [20]]
    assert sorted(path.name for path in folder.iterdir()) == ["20", "25"]


def test_hosts_with_different_configs_are_refused_by_all(simulate):
    outcome = simulate(2, 1, "5", "--fault", "mismatch")
    assert outcome.codes == [EXIT_USAGE] * 2
    assert all("config on host 1 differs from host 0" in log for log in outcome.logs)


def test_a_folder_that_is_not_shared_is_refused_by_all(simulate):
    outcome = simulate(2, 1, "5", "--fault", "private")
    assert outcome.codes == [EXIT_USAGE] * 2
    assert all("is not shared: host 1 cannot see" in log for log in outcome.logs)


def test_an_exception_on_one_host_ends_all_quickly(simulate):
    outcome = simulate(
        2, 1, "50", "--fault", "raise", "--pause", "0.05", event=Event("injected", id, host=1)
    )
    assert outcome.codes[1] == 1
    assert outcome.codes[0] != 0
    assert "RuntimeError: injected" in outcome.logs[1]
    assert outcome.seconds_after_event < 60


def test_storage_that_fails_during_the_run_is_one_sentence_and_no_wait(simulate):
    start = time.monotonic()
    outcome = simulate(1, 1, "50", "--every", "5", "--fault", "storage")
    assert outcome.codes == [EXIT_USAGE]
    assert "podvision: error: a checkpoint could not be written to" in outcome.logs[0]
    assert time.monotonic() - start < 30
