"""A hang is said once, with the stacks; compiling and evaluating are no hang."""

from __future__ import annotations

import threading

import pytest

from training.errors import EXIT_HANG
from training.guards.watchdog import Watchdog


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def tick(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


def test_a_hang_is_reported_once_until_the_next_step(tmp_path, clock, capsys):
    dog = Watchdog(tmp_path, hang_seconds=10, hang_factor=20, clock=clock)
    dog.beat(41)
    clock.tick(10)
    assert not dog.check()
    clock.tick(1)
    assert dog.check() and not dog.check()

    said = capsys.readouterr().err
    assert said.startswith("No step has finished for 11 s since step 41 on process 0 (limit 10 s)")
    dog.beat(42)
    clock.tick(11)
    assert dog.check()


def test_slow_steps_raise_the_limit(tmp_path, clock):
    dog = Watchdog(tmp_path, hang_seconds=10, hang_factor=20, clock=clock)
    dog.beat(1, median_seconds=3.0)
    assert dog.limit == 60
    clock.tick(59)
    assert not dog.check()
    clock.tick(2)
    assert dog.check()


def test_no_alarm_while_paused_and_a_full_limit_after_it(tmp_path, clock):
    dog = Watchdog(tmp_path, hang_seconds=10, hang_factor=1, clock=clock)
    with dog.paused():
        with dog.paused():
            clock.tick(1000)
        clock.tick(1000)
        assert not dog.check()
    clock.tick(9)
    assert not dog.check()
    clock.tick(2)
    assert dog.check()


def test_the_thread_dumps_the_stack_of_the_hanging_thread(tmp_path, capsys):
    alarmed, sentences = threading.Event(), []

    def on_hang(sentence):
        sentences.append(sentence)
        alarmed.set()

    def wait_for_a_collective_that_never_comes():
        assert alarmed.wait(timeout=20)

    with Watchdog(tmp_path, hang_seconds=0.02, hang_factor=1, process=3, on_hang=on_hang):
        wait_for_a_collective_that_never_comes()
    dump = (tmp_path / "hang-3.txt").read_text()
    assert "wait_for_a_collective_that_never_comes" in dump and "Thread MainThread" in dump
    assert "on process 3" in sentences[0] and "before the first step" in sentences[0]
    assert capsys.readouterr().err.count("wait_for_a_collective_that_never_comes") >= 1


def test_stop_ends_the_thread_and_may_be_repeated(tmp_path):
    dog = Watchdog(tmp_path, hang_seconds=1000, hang_factor=1)
    with dog:
        assert any(thread.name == "watchdog" for thread in threading.enumerate())
    dog.stop()
    assert not any(thread.name == "watchdog" for thread in threading.enumerate())
    assert not (tmp_path / "hang.txt").exists()


@pytest.mark.parametrize("exit_seconds", [0.0, 30.0])
def test_a_hang_ends_the_process_after_its_report_only_where_that_was_asked_for(
    tmp_path, clock, capsys, exit_seconds
):
    codes = []
    dog = Watchdog(tmp_path, 10, 1, clock=clock, exit_seconds=exit_seconds, leave=codes.append)
    dog.beat(7)
    clock.tick(11)
    assert dog.check() and not codes
    clock.tick(28)
    assert not dog.check() and not codes
    with dog.paused():
        clock.tick(5)
        assert not dog.check() and not codes  # it is saved, or evaluated, after all
    dog.beat(8)
    clock.tick(11)
    assert dog.check() and not codes
    clock.tick(31)
    assert not dog.check()
    assert codes == ([EXIT_HANG] if exit_seconds else [])
    assert ("ends itself" in capsys.readouterr().err) == bool(exit_seconds)
