"""Ctrl-C and SIGTERM in each phase of a run: all that was made is saved, and the run goes on as if
nothing had happened. Real processes, also in a pseudo-terminal.
"""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from launch import cli
from tests.conftest import REPOSITORY
from tests.pod import stopped_run
from tests.smoke.commands import losses
from training import registry, stop
from training.checkpoint.folder import CheckpointFolder

pytestmark = pytest.mark.pod

INTERRUPT, TERMINATE = signal.SIGINT, signal.SIGTERM
CTRL_C = b"\x03"
# The host of a preempted pod has 30 seconds; what is long here takes a second.
SECONDS_TO_END = 25.0


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "toy.py"
    path.write_text(stopped_run.RECIPE)
    return str(path)


@pytest.fixture(scope="module")
def finish(recipe):
    """Trains to the end in this process, from whatever a folder holds."""
    systems = registry.SYSTEMS
    stopped_run.register()

    def to_the_end(workdir: Path) -> dict[int, float]:
        assert cli.main(train(recipe, workdir)) == 0
        assert (workdir / "DONE").exists() and not (workdir / "PREEMPTED").exists()
        return losses(workdir)

    yield to_the_end
    registry.SYSTEMS = systems


@pytest.fixture(scope="module")
def uninterrupted(finish, tmp_path_factory) -> dict[int, float]:
    found = finish(tmp_path_factory.mktemp("whole") / "run")
    assert list(found) == list(range(1, 25))
    return found


# The program without a phase that takes long.
AS_INSTALLED = """
import fcntl, sys, termios
fcntl.ioctl(sys.stdin, termios.TIOCSCTTY, 0)
from launch.cli import start
start()
"""


class StartedRun:
    """A process and all that it has printed so far; in a pseudo-terminal or with a pipe."""

    def __init__(self, phase: str, words: list[str], terminal: bool = False):
        how = ["-m", "tests.pod.stopped_run", phase] if phase else ["-c", AS_INSTALLED]
        command = [sys.executable, *how, *words]
        here, there = pty.openpty() if terminal else os.pipe()
        self.terminal, self.reading = here if terminal else None, here
        # The process makes a terminal on its standard input its own, so that Ctrl-C reaches it.
        self.process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            stdin=there if terminal else subprocess.DEVNULL,
            stdout=there,
            stderr=there,
            start_new_session=True,
        )
        os.close(there)
        self.output = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # a terminal without programs cannot be read
            while data := os.read(self.reading, 4096):
                self.output += data.decode(errors="replace")

    def wait_for(self, text: str, seconds: float = 100.0) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.output:
            assert self.process.poll() is None and time.monotonic() < deadline, self.output
            time.sleep(0.01)

    def send(self, number: int) -> None:
        """Types Ctrl-C on a terminal; sends a signal elsewhere."""
        if self.terminal is not None and number == INTERRUPT:
            os.write(self.terminal, CTRL_C)
        else:
            self.process.send_signal(number)

    def end(self) -> int:
        """Waits for the end; the exit code."""
        try:
            return self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"it did not end:\n{self.output}") from None
        finally:
            time.sleep(0.05)  # for the thread that reads


def train(recipe: str, workdir: Path) -> list[str]:
    return ["train", "--config", recipe, "--workdir", str(workdir)]


def assert_everything_is_saved(workdir: Path) -> None:
    """The marker names the newest checkpoint, and no update was made after it."""
    marked = int((workdir / "PREEMPTED").read_text())
    assert max(CheckpointFolder(workdir).steps(), default=0) == marked < 24
    assert max(losses(workdir), default=0) <= marked
    assert not (workdir / "DONE").exists()


PHASES = [
    *("start", "restore", "compile", "compiler", "data"),
    *("update", "refresh", "evaluation", "save"),
]
# Two quick ones for every change; the rest with the slow tests.
ALWAYS = {("evaluation", TERMINATE, False), ("update", INTERRUPT, True)}
CASES = [
    (phase, number, terminal)
    for phase in PHASES
    for number, terminal in ((INTERRUPT, True), (TERMINATE, False))
]
CASES += [("save", INTERRUPT, False), ("compile", TERMINATE, True)]


def identity(case) -> str:
    phase, number, terminal = case
    return f"{phase}-{signal.Signals(number).name}{'-terminal' if terminal else ''}"


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=identity(case), marks=[] if case in ALWAYS else [pytest.mark.slow])
        for case in CASES
    ],
)
def test_a_stop_in_any_phase_saves_everything_and_the_run_goes_on_bit_for_bit(
    case, recipe, finish, uninterrupted, tmp_path
):
    phase, number, terminal = case
    workdir = tmp_path / "run"
    words = train(recipe, workdir)
    if phase == "restore":
        first = StartedRun("update", words)
        first.wait_for("in update")
        first.send(TERMINATE)
        assert first.end() == 0
    run = StartedRun(phase, words, terminal)
    run.wait_for(f"in {phase}")
    run.send(number)
    assert run.end() == 0, run.output
    assert "Traceback" not in run.output
    assert "asked to stop" in run.output
    assert_everything_is_saved(workdir)
    if phase == "evaluation":
        assert not (workdir / "eval" / "7.json").exists(), "a stop does not wait for it"
    assert finish(workdir) == uninterrupted


def test_a_second_ctrl_c_ends_at_once_and_what_was_saved_serves(
    recipe, finish, uninterrupted, tmp_path
):
    run = StartedRun("refresh", train(recipe, tmp_path / "run"), terminal=True)
    run.wait_for("in refresh")
    run.send(INTERRUPT)
    run.wait_for("asked to stop")
    time.sleep(2 * stop.ONE_KEYSTROKE_SECONDS)
    run.send(INTERRUPT)
    assert run.end() == 130
    assert "ended at once" in run.output and "Traceback" not in run.output
    assert finish(tmp_path / "run") == uninterrupted


SENTENCES = {INTERRUPT: (130, "ended by Ctrl-C"), TERMINATE: (143, "ended by SIGTERM")}


@pytest.mark.parametrize("number", [pytest.param(INTERRUPT, marks=pytest.mark.slow), TERMINATE])
@pytest.mark.parametrize("command", ["evaluate", pytest.param("overfit", marks=pytest.mark.slow)])
def test_a_command_without_anything_to_save_ends_with_one_sentence(
    command, number, recipe, finish, tmp_path
):
    workdir = tmp_path / "run"
    words = ["overfit", "--config", recipe]
    if command == "evaluate":
        finish(workdir)
        words = ["evaluate", "--workdir", str(workdir)]
    run = StartedRun("evaluation", words, terminal=number == INTERRUPT)
    run.wait_for("in evaluation")
    run.send(number)
    code, sentence = SENTENCES[number]
    assert run.end() == code, run.output
    assert run.output.count("podvision") == 1 and f"{sentence} before it was done" in run.output
    assert "Traceback" not in run.output


@pytest.mark.slow
def test_ctrl_c_ends_a_preparation_and_its_processes_with_one_sentence(tmp_path):
    from jepa3d.synthetic import write_tree

    write_tree(tmp_path / "dicom", participants=12)
    words = ["prepare", "jepa3d", "--input", f"{tmp_path / 'dicom'}", "--workers", "2"]
    words += ["--output", f"{tmp_path / 'records'}", "--shape", "8,32,32", "--patch", "4,8,8"]
    run = StartedRun("", words, terminal=True)
    run.wait_for("preparing")
    run.send(INTERRUPT)
    assert run.end() == 130, run.output
    assert "ended by Ctrl-C before it was done" in run.output
    assert "Traceback" not in run.output
