"""Goodput against a run timed by hand."""

from __future__ import annotations

import pytest

from training.record.events import EVENTS_FILE, EventLog, goodput, read_events


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def tick(self, seconds):
        self.now += seconds


def test_an_undisturbed_run_is_divided_into_its_buckets(tmp_path):
    clock = Clock()
    log = EventLog(tmp_path, clock=clock)
    clock.tick(5)
    log.launch(step=0)
    with log.measure("compile", 0):
        clock.tick(10)
    clock.tick(60)
    log.train(100, updates=100, seconds=50, data_wait=10)
    with log.measure("eval", 100):
        clock.tick(20)
    with log.measure("checkpoint", 100):
        clock.tick(4)
    clock.tick(1)
    log.stop(100, "done", "all updates were made")
    log.close()
    result = goodput(tmp_path)
    assert result == pytest.approx(
        {
            "wall": 100, "productive": 50, "lost": 0, "downtime": 0, "other": 1, "init": 5,
            "compile": 10, "data_wait": 10, "eval": 20, "checkpoint": 4, "launches": 1,
            "goodput": 0.5,
        }
    )  # fmt: skip


def test_steps_after_the_resumed_checkpoint_are_lost_and_the_gap_is_downtime(tmp_path):
    clock = Clock()
    first = EventLog(tmp_path, clock=clock)
    first.launch(step=0)
    for step in (100, 200, 300):
        clock.tick(100)
        first.train(step, updates=100, seconds=100, data_wait=0)
    first.close()
    clock.tick(40)
    second = EventLog(tmp_path, clock=clock)
    second.launch(step=150)
    clock.tick(60)
    second.train(210, updates=60, seconds=60, data_wait=0)
    second.close()
    result = goodput(tmp_path)
    assert result["lost"] == pytest.approx(150), "half of the second hundred and the third"
    assert result["productive"] == pytest.approx(150 + 60)
    assert result["downtime"] == pytest.approx(40)
    assert result["wall"] == pytest.approx(400) and result["launches"] == 2
    assert result["goodput"] == pytest.approx(210 / 400)


def test_a_line_torn_by_a_kill_costs_only_itself(tmp_path):
    (tmp_path / EVENTS_FILE).write_text(
        '{"event": "launch", "time": 1.0, "step": 0}\n{"event": "tr'
    )
    log = EventLog(tmp_path, clock=Clock())
    log.launch(step=3)
    log.close()
    assert [event["event"] for event in read_events(tmp_path)] == ["launch", "launch", "init"]


def test_an_exception_in_a_measured_body_is_logged_and_passes(tmp_path):
    log = EventLog(tmp_path)
    with pytest.raises(KeyError), log.measure("eval", 3):
        raise KeyError
    log.close()
    assert [event["event"] for event in read_events(tmp_path)] == ["eval"]


def test_a_folder_without_events_has_no_goodput(tmp_path):
    EventLog(tmp_path, main=False).launch(0)
    assert goodput(tmp_path) == {} and not (tmp_path / EVENTS_FILE).exists()
