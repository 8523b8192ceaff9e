"""Auxiliary terms have their share whatever their scale, and never more than the cap."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.loss_config import BalanceConfig
from hand_object.losses.balance import (
    LEAST_SEEN,
    gradient_shares,
    init_balance,
    measured,
    ramp,
    restrained,
    share_ratio,
)
from training.loss import Total

NAMES = ["contact", "sds", "temporal"]
SHARES = {"contact": 0.08, "sds": 0.06, "temporal": 0.09}
SHARE = BalanceConfig()
FIXED = BalanceConfig(mode="fixed")


def numbers(values) -> dict:
    return {name: jnp.float32(value) for name, value in values.items()}


def everyone(value) -> dict:
    return {name: jnp.asarray(value) for name in NAMES}


def total(value) -> Total:
    return Total(jnp.float32(value), jnp.float32(1.0))


@pytest.mark.parametrize("scales", itertools.permutations([1e-4, 1.0, 1e4]))
def test_terms_of_any_scale_end_at_their_share_of_the_gradient(scales):
    random = np.random.default_rng(0)
    state, sizes = init_balance(NAMES), dict(zip(NAMES, scales, strict=True))
    update = jax.jit(lambda s, b, o: measured(s, b, o, everyone(True), SHARES, SHARE))
    for _ in range(40):
        base = random.uniform(0.8, 1.2)
        own = {n: size * random.uniform(0.7, 1.3) for n, size in sizes.items()}
        state = update(state, numbers(dict.fromkeys(NAMES, base)), numbers(own))
    weighted = {n: float(state["terms"][n]["factor"]) * sizes[n] for n in NAMES}
    whole = 1.0 + sum(weighted.values())
    for name in NAMES:
        assert 0.05 <= weighted[name] / whole <= 0.10
        # The averages are of about ten values that differ by 30 % at most.
        assert weighted[name] / whole == pytest.approx(SHARES[name], rel=0.25)


def test_the_first_measurement_gives_the_exact_share():
    base, own = numbers(dict.fromkeys(NAMES, 2.0)), numbers(dict.fromkeys(NAMES, 5e3))
    state = measured(init_balance(NAMES), base, own, everyone(True), SHARES, SHARE)
    for name in NAMES:
        wanted = share_ratio(SHARES, name) * 2.0 / 5e3
        assert float(state["terms"][name]["factor"]) == pytest.approx(wanted, rel=1e-6)
    # Beside the base alone; with all terms the shares are those of the config.
    alone = float(gradient_shares(state)["sds"])
    ratio = share_ratio(SHARES, "sds")
    assert alone == pytest.approx(ratio / (1 + ratio), rel=1e-5)


def test_a_gradient_that_leaps_is_capped_at_once():
    base = numbers(dict.fromkeys(NAMES, 1.0))
    state = init_balance(NAMES)
    for size in (1.0, 1.0, 1e4):
        own = numbers(dict.fromkeys(NAMES, size))
        state = measured(state, base, own, everyone(True), SHARES, SHARE)
    for name in NAMES:
        weighted = float(state["terms"][name]["factor"]) * 1e4
        assert weighted / (1.0 + weighted) <= SHARE.most * (1 + 1e-5)


def test_what_is_not_due_or_says_nothing_keeps_its_factor():
    base = numbers(dict.fromkeys(NAMES, 1.0))
    state = measured(init_balance(NAMES), base, base, everyone(True), SHARES, SHARE)
    own = numbers({"contact": 0.0, "sds": jnp.nan, "temporal": 7.0})
    due = {name: jnp.asarray(name != "temporal") for name in NAMES}
    after = measured(state, base, own, due, SHARES, SHARE)
    assert jax.tree.map(float, after) == jax.tree.map(float, state)


def test_a_fixed_weight_of_5000_stays_within_the_cap():
    state = init_balance(["sds"])
    for value in (1e-3, 0.2, 40.0):
        factors = {"sds": jnp.float32(5000.0)}
        terms, state = restrained(
            state, {"rgb": jnp.float32(0.2)}, {"sds": total(value)}, factors, FIXED
        )
        weighted = 5000.0 * float(terms["sds"].mean())
        assert np.isfinite(weighted)
        assert weighted / (0.2 + weighted) <= FIXED.most * (1 + 1e-5)
    assert int(state["terms"]["sds"]["active"]) == 3


def test_below_the_cap_a_fixed_term_is_left_as_it_is_and_has_its_gradient():
    def value(x):
        term = Total(3.0 * x, jnp.float32(2.0))
        terms, _ = restrained(
            init_balance(["temporal"]),
            {"rgb": jnp.float32(100.0)},
            {"temporal": term},
            {"temporal": jnp.float32(0.01)},
            FIXED,
        )
        return terms["temporal"].mean()

    assert float(value(1.0)) == pytest.approx(1.5)
    assert float(jax.grad(value)(1.0)) == pytest.approx(1.5)


def test_a_leap_of_the_loss_leaves_auxiliary_terms_out_and_is_counted():
    state = init_balance(["contact"])
    factors, base = {"contact": jnp.float32(1.0)}, {"rgb": jnp.float32(0.1)}
    advance = jax.jit(
        lambda s, value: restrained(s, base, {"contact": total(value)}, factors, SHARE)
    )
    for _ in range(LEAST_SEEN):
        terms, state = advance(state, 0.01)
    assert float(terms["contact"].mean()) == pytest.approx(0.01)
    terms, state = advance(state, 0.5)
    assert float(terms["contact"].mean()) == 0 and int(state["spikes"]) == 1
    assert int(state["terms"]["contact"]["active"]) == LEAST_SEEN
    terms, state = advance(state, jnp.nan)
    # A NaN is no leap: the core suppresses that update, and nobody hides it.
    assert not np.isfinite(float(terms["contact"].mean()))


def test_a_loss_that_stays_high_becomes_the_usual_one():
    state = init_balance(["contact"])
    factors, base = {"contact": jnp.float32(1.0)}, {"rgb": jnp.float32(0.1)}
    advance = jax.jit(
        lambda s, value: restrained(s, base, {"contact": total(value)}, factors, SHARE)
    )
    for _ in range(LEAST_SEEN):
        _, state = advance(state, 0.0)
    for _ in range(200):
        terms, state = advance(state, 0.9)
    assert float(terms["contact"].mean()) == pytest.approx(0.9)


def test_a_ramp_begins_with_its_first_part_and_ends_at_one():
    found = [float(ramp(jnp.int32(update), 10, 4)) for update in (9, 10, 11, 13, 14, 100)]
    assert found == [0.0, 0.25, 0.5, 1.0, 1.0, 1.0]


def test_a_run_without_auxiliary_terms_has_no_state():
    assert init_balance([]) == {}
