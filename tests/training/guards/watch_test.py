"""Each guard over the updates stops at its injected fault and is silent on a healthy run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.toy import ToyTask
from training.config import GuardConfig
from training.guards.watch import (
    AverageMoved,
    ConstantTerm,
    GradientNorm,
    LearningRateRose,
    LossSpike,
    ShareCap,
    Suppressed,
    ZeroGradient,
    watches,
)
from training.loss import LossTerm

TERMS = {"error": LossTerm(), "late": LossTerm(0.1, window=(100, 200), share_cap=0.5)}


class TwoTermTask(ToyTask):
    loss_terms = TERMS


def watches_of(task, config, warmup):
    return watches(config, task.loss_terms, task.guards(), warmup)


def healthy(step, rng):
    """Metrics of one update of a run in which all is well."""
    error = 2.0 * np.exp(-step / 300) * (1 + 0.05 * rng.normal())
    inside = 100 <= step - 1 < 200
    rate = 1e-3 * min(step / 10, 1) * (1 - 0.5 * step / 1000)
    return {
        "loss": error + 0.1 * inside,
        "loss/error": error,
        "loss/late": 1.0 + 0.1 * rng.normal(),
        "share/error": error / (error + 0.1 * inside),
        "share/late": 0.1 * inside / (error + 0.1 * inside),
        "grad_norm": 1.0,
        "param_norm": 10.0,
        "grad_norm/head": 0.5 + 0.1 * rng.uniform(),
        "grad_norm/body": 0.8 + 0.1 * rng.uniform(),
        "learning_rate": rate,
        "learning_rate/head": rate / 10,
        "ema_decay": 0.99,
        "ema_update_norm": 1e-3,
        "suppressed/nonfinite": 0.0,
        "skipped": 0.0,
        "replay": 0.0,
    }


def first_stop(watch, updates, change=None, start=1, seed=0):
    """The first (step, finding) that is fatal, and how many were not."""
    rng, warned = np.random.default_rng(seed), 0
    for step in range(start, updates + 1):
        metrics = healthy(step, rng)
        if change is not None:
            metrics |= change(step, metrics)
        finding = watch.check(step, metrics)
        if finding is not None and not finding.warning:
            return step, finding, warned
        warned += finding is not None
    return None, None, warned


@pytest.mark.parametrize("seed", range(3))
def test_a_healthy_run_trips_nothing(seed):
    for watch in watches_of(TwoTermTask(), GuardConfig(), 10):
        step, finding, warned = first_stop(watch, 600, seed=seed)
        assert finding is None and warned == 0, f"{watch.name} at {step}: {finding}"


def test_every_guard_can_be_switched_off_by_its_name():
    everything = watches_of(ToyTask(), GuardConfig(), 1)
    names = [watch.name for watch in everything]
    assert len(set(names)) == len(names) and all(watch.promise for watch in everything)
    for name in names:
        left = [w.name for w in watches_of(ToyTask(), GuardConfig(off=(name,)), 1)]
        assert left == [other for other in names if other != name]


def suppressed_from(first, reason="nonfinite"):
    return lambda step, _: {f"suppressed/{reason}": float(step >= first)}


def test_a_suppressed_update_is_reported_and_many_in_a_row_stop_the_run():
    step, finding, warned = first_stop(Suppressed(4), 50, suppressed_from(20))
    assert (step, warned, finding.name) == (23, 3, "consecutive-skips")
    assert "4 updates in a row were suppressed (nonfinite), the last at step 23" in finding.sentence
    every_second = first_stop(
        Suppressed(2), 50, lambda step, _: {"suppressed/nonfinite": float(step % 2)}
    )
    assert every_second == (None, None, 25)


def test_an_update_that_is_replayed_is_no_skip():
    def change(step, _):
        return {"suppressed/overflow": 1.0, "replay": 1.0}

    assert first_stop(Suppressed(2), 20, change) == (None, None, 0)


def test_a_group_without_gradient_stops_the_run_and_is_named():
    def change(step, _):
        return {"grad_norm/head": 0.0 if step >= 5 else 1.0}

    step, finding, _ = first_stop(ZeroGradient(20, {}), 100, change)
    assert step == 24 and "'head' was exactly zero for 20 updates up to step 24" in finding.sentence

    def now_and_then(step, _):
        return {"grad_norm/head": float(step % 10 == 0)}

    assert first_stop(ZeroGradient(20, {}), 100, now_and_then)[1] is None


def test_a_group_that_may_be_quiet_at_first_is_watched_afterwards():
    def change(step, _):
        return {"grad_norm/head": 0.0}

    step, _, _ = first_stop(ZeroGradient(20, {"head": 50}), 100, change)
    assert step == 70

    def awake(step, _):
        return {"grad_norm/head": float(step > 50)}

    assert first_stop(ZeroGradient(20, {"head": 50}), 100, awake)[1] is None


def test_quiet_updates_are_counted_without_the_suppressed_ones():
    def change(step, _):
        return {"grad_norm/head": 0.0, "skipped": 30.0}

    step, _, _ = first_stop(ZeroGradient(20, {"head": 50}), 200, change, start=31)
    assert step == 100


@pytest.mark.parametrize("value", [0.0, 1.25])
def test_a_required_term_that_never_changes_stops_the_run(value):
    def change(step, _):
        return {"loss/error": value}

    step, finding, _ = first_stop(ConstantTerm(50, TERMS), 100, change, start=7)
    assert step == 56 and f"'error' was exactly {value:g} for 50 updates" in finding.sentence


def test_updates_without_change_are_counted_from_the_last_change():
    def stuck(step, _):
        return {"loss/error": 1.25 if step > 20 else step / 16}

    assert first_stop(ConstantTerm(50, TERMS), 100, stuck)[0] == 69  # 20 / 16 is 1.25, too


def test_a_term_is_watched_inside_its_window_only():
    def frozen(step, _):
        return {"loss/late": 0.0}

    step, finding, _ = first_stop(ConstantTerm(50, TERMS), 400, frozen)
    assert step == 150 and "'late'" in finding.sentence

    def elsewhere(step, m):
        return {"loss/late": m["loss/late"] if 100 <= step - 1 < 200 else 0.0}

    assert first_stop(ConstantTerm(50, TERMS), 400, elsewhere)[1] is None
    optional = {"error": LossTerm(required=False)}

    def same(step, _):
        return {"loss/error": 0.0}

    assert first_stop(ConstantTerm(50, optional), 400, same)[1] is None


def test_a_learning_rate_that_rises_after_the_warm_up_stops_the_run():
    def cosine(step, _):
        return {"learning_rate": 1e-3 * (1.01 + np.cos(np.pi * step / 140))}

    step, finding, _ = first_stop(LearningRateRose(10), 400, cosine)
    assert 140 < step <= 143 and "learning_rate rose from" in finding.sentence

    def group(step, _):
        return {"learning_rate/head": 1e-4 if step < 60 else 2e-4}

    step, finding, _ = first_stop(LearningRateRose(10), 400, group)
    assert step == 60 and "learning_rate/head rose from 0.0001 to 0.0002" in finding.sentence


def test_a_rise_of_little_steps_is_seen_too():
    def slow(step, _):
        return {"learning_rate": 1e-4 * (1 + 2e-6 * step)}

    step, _, _ = first_stop(LearningRateRose(10), 100, slow)
    assert step is not None and step < 20


def test_the_warm_up_itself_may_rise():
    assert first_stop(LearningRateRose(10), 300)[1] is None


@settings(max_examples=15, deadline=None)
@given(st.floats(1e-6, 1e6), st.integers(31, 300), st.integers(0, 9))
def test_a_loss_that_jumps_stops_the_run_at_any_scale(scale, jump, seed):
    def change(step, metrics):
        factor = scale * (10.0 if step >= jump else 1.0)
        return {"loss": metrics["loss/error"] * factor, "share/late": 0.0}

    step, finding, warned = first_stop(LossSpike(10.0, 5), 600, change, seed=seed)
    assert jump <= step <= jump + 15 and warned >= 4
    assert "the loss has been above" in finding.sentence


def test_one_bad_batch_is_recorded_and_does_not_stop_the_run():
    def change(step, m):
        return {"loss": m["loss"] * (50 if step == 300 else 1)}

    assert first_stop(LossSpike(10.0, 5), 600, change) == (None, None, 1)


def test_a_loss_that_is_not_finite_is_the_business_of_another_guard():
    def change(step, m):
        return {"loss": np.nan if step % 7 == 0 else m["loss"]}

    assert first_stop(LossSpike(10.0, 5), 600, change) == (None, None, 0)


def test_a_term_that_begins_raises_the_loss_without_being_a_spike():
    def change(step, metrics):
        inside = 100 <= step - 1 < 200
        error = metrics["loss/error"]
        return {"loss": error + 9.0 * inside, "share/late": 9.0 * inside / (error + 9.0)}

    assert first_stop(LossSpike(10.0, 5), 600, change) == (None, None, 0)


def test_a_term_above_its_cap_stops_the_run():
    def change(step, _):
        return {"share/late": 0.9 if step > 100 else 0.0}

    step, finding, _ = first_stop(ShareCap(TERMS, 5), 300, change)
    assert step == 105 and "'late' took 90% of the loss at step 105, above its cap of 50%" in (
        finding.sentence
    )


def test_an_average_that_stands_still_stops_the_run():
    def still(step, _):
        return {"ema_update_norm": 0.0}

    step, finding, _ = first_stop(AverageMoved(10), 100, still, start=3)
    assert step == 12 and "did not move in 10 updates" in finding.sentence

    def frozen_on_purpose(step, _):
        return {"ema_update_norm": 0.0, "ema_decay": 1.0}

    assert first_stop(AverageMoved(10), 100, frozen_on_purpose)[1] is None

    def skipped(step, _):
        return {"ema_update_norm": 0.0, "suppressed/nonfinite": 1.0}

    assert first_stop(AverageMoved(10), 100, skipped)[1] is None


def test_a_run_without_average_is_not_watched_for_one():
    watch = AverageMoved(1)
    assert watch.check(1, {"loss": 1.0}) is None


def test_an_absurd_gradient_norm_stops_the_run_although_clipping_hides_it():
    exploded = first_stop(GradientNorm(1e6, 5), 50, lambda s, _: {"grad_norm": 6e17})
    assert exploded[0] == 5 and "before clipping" in exploded[1].sentence
    once = first_stop(
        GradientNorm(1e6, 5), 50, lambda s, _: {"grad_norm": 6e17 if s == 20 else 1.0}
    )
    assert once == (None, None, 1)


@pytest.mark.parametrize(("norm", "stops"), [(0.99e7, None), (1.01e7, 5)])
def test_a_gradient_norm_is_absurd_above_its_ratio_to_the_parameters(norm, stops):
    found = first_stop(GradientNorm(1e6, 5), 50, lambda s, m: {"grad_norm": norm})
    assert found[0] == stops


def test_a_gradient_norm_of_zero_stops_the_run():
    step, finding, _ = first_stop(GradientNorm(1e6, 5), 50, lambda s, _: {"grad_norm": 0.0})
    assert step == 5 and "exactly zero" in finding.sentence
