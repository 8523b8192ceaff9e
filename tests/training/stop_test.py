"""Ctrl-C and SIGTERM in real processes: asked once, and ended at once by a second Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.conftest import REPOSITORY
from training import stop
from training.errors import ConfigError

INTERRUPT, TERMINATE = signal.SIGINT, signal.SIGTERM

PROGRAM = """
import hashlib, sys, time
from training import stop

def obedient():
    while not stop.requested():
        time.sleep(0.01)
    return "saved"

def stubborn():
    obedient()
    time.sleep(60)

def slow():
    obedient()
    time.sleep(1.5)
    return "saved"

def native():  # does not come back to Python for many seconds
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 200_000_000)

def waiting():
    try:
        with stop.interruptible():
            time.sleep(60)
    except stop.StopRequested:
        return "broken off"

def free():
    with stop.ending_freely():
        native()

def idle():
    time.sleep(60)

answer, body = sys.argv[1:]
code = 0
with stop.listening(answer, "train"):
    print("ready", flush=True)
    try:
        print(globals()[body](), flush=True)
    except KeyboardInterrupt:
        print(stop.interrupted(), file=sys.stderr)
        code = stop.exit_code()
sys.exit(code)
"""
ASKED = "podvision train: asked to stop: it ends in order; a second Ctrl-C ends it at once\n"
AT_ONCE = "podvision train: ended at once by a second Ctrl-C\n"


def signaled(answer: str, body: str, *numbers: int, pause: float = 0.4):
    """(exit code, output, errors) of a process that gets signals, one after the other."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, answer, body],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for number in numbers:
        time.sleep(pause)
        process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


@pytest.mark.parametrize("number", [INTERRUPT, TERMINATE])
def test_a_command_that_is_asked_ends_in_order_and_well(number):
    assert signaled(stop.ASK, "obedient", number) == (0, "saved\n", ASKED)


@pytest.mark.parametrize("number", [INTERRUPT, TERMINATE])
def test_a_wait_is_broken_off(number):
    assert signaled(stop.ASK, "waiting", number) == (0, "broken off\n", ASKED)


@pytest.mark.parametrize("body", ["stubborn", "native"])
def test_a_second_ctrl_c_ends_a_command_wherever_it_is(body):
    assert signaled(stop.ASK, body, INTERRUPT, INTERRUPT) == (130, "", ASKED + AT_ONCE)


def test_a_ctrl_c_after_sigterm_is_the_first_one():
    assert signaled(stop.ASK, "slow", TERMINATE, INTERRUPT) == (0, "saved\n", ASKED)


def test_a_ctrl_c_that_arrives_twice_at_once_counts_as_one():
    assert signaled(stop.ASK, "obedient", INTERRUPT, INTERRUPT, pause=0.0)[0] == 0


def test_where_nothing_can_be_lost_the_process_ends_at_once():
    code, output, errors = signaled(stop.ASK, "free", TERMINATE)
    assert (code, output) == (0, "") and "nothing had to be saved" in errors


@pytest.mark.parametrize(
    ("number", "code", "cause"), [(INTERRUPT, 130, "Ctrl-C"), (TERMINATE, 143, "SIGTERM")]
)
def test_a_command_without_anything_to_save_is_interrupted(number, code, cause):
    expected = f"ended by {cause} before it was done\n"
    assert signaled(stop.END, "idle", number) == (code, "", expected)


def test_a_command_that_hangs_in_native_code_is_ended_after_a_while():
    expected = "podvision train: ended by SIGTERM before it was done\n"
    assert signaled(stop.END, "native", TERMINATE) == (143, "", expected)


def test_handlers_and_the_request_end_with_the_command(capsys):
    before = [signal.getsignal(number) for number in stop.SIGNALS]
    with stop.listening(stop.ASK, "demo"):
        with stop.listening(stop.ASK, "train"):
            os.kill(os.getpid(), TERMINATE)
            assert stop.requested()
        assert stop.requested(), "the command around it knows"
    assert not stop.requested()
    assert [signal.getsignal(number) for number in stop.SIGNALS] == before
    assert capsys.readouterr().err == ASKED


def test_whoever_is_to_be_told_is_told_once_also_when_it_was_before():
    told = []
    with stop.listening(stop.ASK, "train"):
        stop.pass_on_to(lambda: told.append("early"))
        os.kill(os.getpid(), TERMINATE)
        os.kill(os.getpid(), TERMINATE)
    with stop.listening(stop.ASK, "train"):
        os.kill(os.getpid(), TERMINATE)
        assert stop.requested()
        stop.pass_on_to(lambda: told.append("late"))
    assert told == ["early", "late"]


def test_a_child_that_is_started_without_ctrl_c_does_not_hear_it():
    code = "import time; print('ready', flush=True); time.sleep(60)"
    with stop.children_without_ctrl_c():
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    child.send_signal(INTERRUPT)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(timeout=0.3)
    child.kill()
    child.wait()


def test_another_thread_than_the_main_one_receives_nothing_and_fails_at_nothing():
    seen = []

    def run():
        with stop.listening(stop.ASK, "train"), stop.interruptible(), stop.ending_freely():
            seen.append(stop.requested())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]


def test_a_stopped_run_ends_with_0_or_with_the_code_that_was_asked_for(monkeypatch):
    monkeypatch.delenv(stop.PREEMPTED_CODE, raising=False)
    assert stop.preempted_exit_code() == 0
    monkeypatch.setenv(stop.PREEMPTED_CODE, "143")
    assert stop.preempted_exit_code() == 143


@pytest.mark.parametrize("text", ["", "-1", "256", "143.0", "TERM"])
def test_a_code_that_no_process_can_end_with_is_refused(monkeypatch, text):
    monkeypatch.setenv(stop.PREEMPTED_CODE, text)
    with pytest.raises(ConfigError, match="PODVISION_PREEMPTED_EXIT_CODE is"):
        stop.preempted_exit_code()


def test_a_stop_before_the_first_update_has_that_code_too(monkeypatch):
    monkeypatch.setenv(stop.PREEMPTED_CODE, "143")
    code, _, errors = signaled(stop.ASK, "free", signal.SIGTERM)
    assert code == 143 and "nothing had to be saved" in errors
