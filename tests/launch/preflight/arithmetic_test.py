"""Numbers of a run that follow from its config."""

from __future__ import annotations

import dataclasses

import pytest

from launch.preflight.arithmetic import BARS, batch_row, schedule_row, sparkline, windows_row
from launch.preflight.topology import topology
from tests.training.toy import CONFIG, ToyTask, toy_program
from training.loss import LossTerm
from training.mesh import Layout, make_mesh


class LateTask(ToyTask):
    loss_terms = {"error": LossTerm(window=(500, 600))}


def program_of(task=ToyTask, **changes):
    config = dataclasses.replace(CONFIG, batch_size=64, **changes)
    return toy_program(task(config), config, Layout(make_mesh(config.mesh)))


def test_a_sparkline_rises_from_zero_to_the_highest():
    assert sparkline([0.0, 1.0, 2.0]) == BARS[0] + BARS[4] + BARS[-1]
    assert sparkline([0.0, 0.0]) == BARS[0] * 2


def test_examples_of_a_device_follow_from_slice_and_accumulation():
    program = program_of()
    config = dataclasses.replace(program.config, accumulation=2)
    row = batch_row(program, config, topology("v4-32"))
    assert row.facts["examples_per_device"] == 64 / 16 / 2
    assert "100 updates of 64 examples; 2 examples a device in each of 2" in row.sentence
    assert row.facts["warmup_updates"] == 3  # 3 %


def test_every_group_has_its_line():
    row = schedule_row(program_of())
    rates = row.facts["all"]
    assert len(row.lines) == 1 and row.lines[0].startswith("all")
    assert 0 < rates["first"] < rates["highest"] <= 1e-4
    assert rates["last"] == pytest.approx(1e-5, rel=1e-3)


def test_a_window_behind_the_end_is_a_failure():
    assert windows_row(program_of()).state == "pass"
    row = windows_row(program_of(LateTask))
    assert row.state == "FAIL" and "would never become active" in row.sentence
