"""How the updates of a run are cut into calls, and what is due after which step."""

from __future__ import annotations

import itertools

import pytest

from training.capabilities import Cadence
from training.plan import Plan

TOTAL = 100


def make_plan(per_call=16, **changes) -> Plan:
    cadences = {"evaluate_every": 30, "save_every": 25, "log_every": 10} | changes
    return Plan(total=TOTAL, updates_per_call=per_call, **cadences)


def updates_of(plan: Plan, first: int) -> list[range]:
    return [range(step, step + updates) for step, updates in plan.calls(first)]


@pytest.mark.parametrize("first", [0, 7, 99])
@pytest.mark.parametrize("per_call", [1, 7, 64])
def test_calls_make_every_update_once_and_are_no_longer_than_asked(per_call, first):
    calls = updates_of(make_plan(per_call), first)
    assert list(itertools.chain(*calls)) == list(range(first, TOTAL))
    assert max(map(len, calls)) <= per_call


def test_no_call_reaches_over_an_evaluation_a_save_or_a_refresh():
    refresh = Cadence(8, start=20, stop=90)
    plan = make_plan(64, refresh=refresh)
    for call in updates_of(plan, 0):
        for step in call[1:]:  # between two updates of one call
            assert not (plan.evaluates(step) or plan.saves(step) or plan.refreshes(step)), step


def test_updates_of_a_call_have_one_variant():
    plan = make_plan(64, variant=lambda step: step // 9 % 2)
    for call in updates_of(plan, 0):
        assert len({plan.variant(step) for step in call}) == 1
    assert len(updates_of(plan, 0)) > len(updates_of(make_plan(64), 0))


def test_last_step_is_evaluated_saved_and_logged_whatever_the_cadence():
    plan = make_plan(evaluate_every=64, save_every=64, log_every=64, logged_first=2)
    assert [step for step in range(1, TOTAL + 1) if plan.evaluates(step)] == [64, TOTAL]
    assert [step for step in range(1, TOTAL + 1) if plan.saves(step)] == [64, TOTAL]
    assert [step for step in range(1, TOTAL + 1) if plan.logs(step)] == [1, 2, 64, TOTAL]


def test_refresh_is_due_after_its_start_and_before_its_stop():
    due = [step for step in range(60) if Cadence(10, start=20, stop=50).due(step)]
    assert due == [30, 40]
    assert not make_plan().refreshes(30)
