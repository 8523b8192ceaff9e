"""Schedules: positive at once, never rising after the warm-up, constant after the end."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import SCHEDULE_KINDS, EmaConfig, GroupConfig, OptimizerConfig, ScheduleConfig
from training.errors import ConfigError
from training.schedules import (
    check_schedule,
    ema_decay,
    longest_warmup,
    make_schedule,
    warmup_updates,
)

configs = st.builds(
    ScheduleConfig,
    kind=st.sampled_from(SCHEDULE_KINDS),
    warmup_fraction=st.floats(0.0, 1.0),
    final_fraction=st.floats(1e-3, 1.0),
    decay_fraction=st.floats(1e-6, 1.0),
    decay_shape=st.sampled_from(["linear", "cosine"]),
    warmup_power=st.sampled_from([1.0, 2.0]),
)


def values_at(schedule, points):
    return np.asarray(jax.vmap(schedule)(jnp.asarray(points, jnp.int32)), np.float64)


@settings(max_examples=25, deadline=None)
@given(configs, st.floats(1e-8, 10.0), st.sampled_from([1, 2, 5, 33, 100, 1000]))
def test_no_learning_rate_rises_after_its_warm_up_over_three_horizons(config, base, total):
    schedule = make_schedule(config, base, total)
    warmup = warmup_updates(config, total)
    points = np.unique(np.linspace(0, 3 * total, 2000).astype(int))
    values = values_at(schedule, points)
    assert values[0] > 0 and np.all(values > 0) and np.all(np.isfinite(values))
    assert np.all(values <= base * (1 + 1e-5))
    assert np.all(np.diff(values[points >= max(warmup - 1, 0)]) <= 1e-6 * base)
    assert np.ptp(values[points >= total]) == 0
    check_schedule(schedule, warmup, total, "group")


@pytest.mark.parametrize("total", [1, 2, 3, 7])
@pytest.mark.parametrize("kind", SCHEDULE_KINDS)
def test_runs_of_a_few_updates_have_a_schedule_too(kind, total):
    config = ScheduleConfig(kind)
    schedule = make_schedule(config, 1e-3, total)
    check_schedule(schedule, warmup_updates(config, total), total, "group")
    assert float(schedule(0)) == pytest.approx(1e-3)


def test_warmup_cosine_is_that_of_optax_shifted_to_start_above_zero():
    total = 1000
    ours = make_schedule(ScheduleConfig("warmup_cosine", 0.03, 0.1), 2e-3, total)
    theirs = optax.linear_schedule(2e-3 / 30, 2e-3, 29)
    warm = np.arange(30)
    np.testing.assert_allclose(values_at(ours, warm), [float(theirs(t)) for t in warm], rtol=1e-5)
    cosine = optax.cosine_decay_schedule(2e-3, total - 1 - 30, alpha=0.1)
    after = np.arange(30, 3 * total)
    expected = np.asarray(jax.vmap(cosine)(jnp.asarray(after - 30)))
    np.testing.assert_allclose(values_at(ours, after), expected, rtol=1e-4)


def test_exponential_is_that_of_the_gaussian_splatting_reference():
    """Log-linear interpolation from base to final over the run."""
    ours = make_schedule(ScheduleConfig("exponential", final_fraction=0.01), 1.6e-4, 501)
    t = np.array([0, 100, 250, 500, 900])
    expected = np.exp(np.interp(t, [0, 500], np.log([1.6e-4, 1.6e-6])))
    np.testing.assert_allclose(values_at(ours, t), expected, rtol=1e-5)


@pytest.mark.parametrize(("total", "peak"), [(30_000, 1000), (2000, 1000), (300, 150)])
def test_warm_up_in_updates_then_exponential_decay(total, peak):
    """From 1 % to the base at `peak`, then log-linear to 1 % at the last update."""
    config = ScheduleConfig(
        "warmup_exponential", final_fraction=0.01, warmup_updates=1000, warmup_start=0.01
    )
    assert warmup_updates(config, total) == peak
    ours = make_schedule(config, 2e-3, total)
    check_schedule(ours, peak, total, "bilateral")
    t = np.unique(np.linspace(0, total - 1, 500).astype(int))
    rising = np.interp(t, [0, peak], [2e-5, 2e-3])
    falling = np.exp(np.interp(t, [peak, total - 1], np.log([2e-3, 2e-5])))
    np.testing.assert_allclose(values_at(ours, t), np.where(t < peak, rising, falling), rtol=1e-4)
    assert float(ours(0)) == pytest.approx(2e-5) and float(ours(3 * total)) == pytest.approx(2e-5)


def test_a_flat_cosine_has_a_quadratic_start_a_plateau_a_half_cosine_and_a_tail():
    config = ScheduleConfig(
        "warmup_stable_decay",
        0.1,
        final_fraction=0.5,
        decay_fraction=0.5,
        decay_shape="cosine",
        tail_fraction=0.1,
        warmup_power=2.0,
    )
    schedule = make_schedule(config, 1.0, 101)  # 11 updates of warm-up, then 90
    points = [0, 4, 10, 11, 55, 74, 91, 100, 300]
    # The decay runs over progress 0.5 ... 0.9 of (t - 11) / 89.
    falling = (np.array([74, 91]) - 11) / 89
    decay = np.clip((falling - 0.5) / 0.4, 0, 1)
    expected = [(1 / 11) ** 2, (5 / 11) ** 2, 1, 1, 1]
    expected += [*(1 - 0.5 * 0.5 * (1 - np.cos(np.pi * decay))), 0.5, 0.5]
    # float32 rounds t / total and the cosine to 6e-8 each; progress is divided by 0.4.
    np.testing.assert_allclose(values_at(schedule, points), expected, rtol=2e-6)


def test_a_tail_that_leaves_no_room_for_the_decay_is_refused():
    with pytest.raises(ConfigError, match="tail_fraction"):
        ScheduleConfig("warmup_stable_decay", decay_fraction=0.2, tail_fraction=0.2)


def test_warmup_stable_decay_follows_a_hand_table():
    config = ScheduleConfig("warmup_stable_decay", 0.1, final_fraction=0.0, decay_fraction=0.5)
    ours = make_schedule(config, 1.0, 111)  # warm-up of 12, then 98 intervals
    table = {0: 1 / 12, 5: 0.5, 11: 1.0, 12: 1.0, 61: 1.0, 110: 0.0, 500: 0.0}
    np.testing.assert_allclose(values_at(ours, list(table)), list(table.values()), atol=1e-6)
    middle = 12 + 98 * 3 // 4
    assert float(ours(middle)) == pytest.approx(1 - 2 * ((middle - 12) / 98 - 0.5), abs=1e-6)


@pytest.mark.parametrize("kind", SCHEDULE_KINDS)
def test_the_last_update_of_a_decaying_schedule_has_the_final_rate(kind):
    ours = make_schedule(ScheduleConfig(kind, final_fraction=0.1), 1.0, 1000)
    assert float(ours(999)) == pytest.approx(1.0 if kind == "constant" else 0.1, rel=1e-5)


def epoch_cosine(t):
    """Warm-up 10 and total 150 *epochs*, floor 1 %, not clamped; made to be stepped per epoch."""
    t = jnp.asarray(t, jnp.float32)
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * (t - 10) / 140))
    return 5e-4 * jnp.where(t < 10, (t + 1) / 10, 0.01 + 0.99 * cosine)


def test_the_cosine_in_epochs_is_right_for_epochs_and_refused_for_updates():
    assert float(epoch_cosine(256)) == pytest.approx(4.31392e-4, rel=1e-5)  # in the original log
    with pytest.raises(ConfigError, match=r"rises at update 1[45]\d, after the warm-up of 10"):
        check_schedule(epoch_cosine, 10, 7000, "all")


@pytest.mark.parametrize(
    ("schedule", "sentence"),
    [
        (lambda t: jnp.float32(1e-3) * jnp.minimum(t / 10, 1), "0 at update 0"),
        (lambda t: jnp.where(t == 37, jnp.nan, 1e-3), "not finite at update 37"),
        (lambda t: jnp.where(t > 150, 1e-4, 1e-3), "still changes after the last update 100"),
        (lambda t: 1e-3 * (1 + jnp.minimum(t, 99) / 1e6), "rises at update"),
        (lambda t: 1e-3 * (1 - jnp.minimum(t, 99) / 50), "negative at update 51"),
        (lambda t: jnp.where(t % 20 == 0, 1e-3, 5e-4), "rises at update 20"),
    ],
)
def test_a_broken_schedule_is_refused_with_its_fault(schedule, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        check_schedule(schedule, 0, 100, "means")
    assert str(caught.value).startswith("means: ")


def test_a_rise_too_slow_to_see_between_neighbors_is_still_a_rise():
    total = 100_000
    with pytest.raises(ConfigError, match="rises"):
        check_schedule(lambda t: 1e-3 * (1 + 2e-3 * jnp.minimum(t / total, 1)), 0, total, "all")


@pytest.mark.parametrize("kind", ["exponential", "warmup_exponential"])
def test_an_exponential_cannot_reach_zero(kind):
    with pytest.raises(ConfigError, match="final_fraction = 0 cannot be reached"):
        ScheduleConfig(kind, final_fraction=0.0)


def test_the_longest_warm_up_counts_every_group():
    short, long = ScheduleConfig(warmup_fraction=0.01), ScheduleConfig(warmup_fraction=0.2)
    config = OptimizerConfig(schedule=short, groups=(GroupConfig("a", schedule=long),))
    assert longest_warmup(config, 1000) == 200


def test_ema_decays_follow_their_formulas():
    t = np.array([0, 1, 50, 99, 400])
    progress = np.minimum(t / 99, 1)
    cosine = 1 - (1 - 0.996) * (np.cos(np.pi * progress) + 1) / 2  # BYOL, with end 1
    table = {
        EmaConfig("constant", 0.99): np.full(5, 0.99),
        EmaConfig("linear", 0.9, 1.0): 0.9 + 0.1 * progress,
        EmaConfig("cosine", 0.996, 1.0): cosine,
        EmaConfig("warmup", end=0.9998, tau=20): 0.9998 * (1 - np.exp(-(t + 1) / 20)),
    }
    for config, expected in table.items():
        np.testing.assert_allclose(values_at(ema_decay(config, 100), t), expected, rtol=1e-6)
    assert ema_decay(EmaConfig("none"), 100) is None
