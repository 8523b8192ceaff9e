"""The U-Net has the size of the original, and says nothing at first."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.prior.import_ghop import FULL
from hand_object.prior.model.layers import Conv
from hand_object.prior.model.unet import MINI_UNET, Unet, UnetConfig, step_embedding
from training.errors import ConfigError

pytestmark = pytest.mark.usefixtures("quick_compilation")
TINY = UnetConfig(
    width=8, multiples=(1, 2), blocks=1, attended=(1,), head=8, groups=4, dropout=0.0, condition=5
)


def shapes(config: UnetConfig, side: int, channels: int):
    grid = jnp.zeros((1, side, side, side, channels))
    step, condition = jnp.zeros(1, jnp.int32), jnp.zeros((1, config.condition))
    return jax.eval_shape(
        lambda key: Unet(config).init(key, grid, step, condition)["params"], jax.random.key(0)
    )


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_full_size_has_the_parameters_of_the_original():
    """About 47 M; the original's own count is not published to the last digit."""
    found = FULL.shapes()["unet"]
    assert count(found) == pytest.approx(47e6, rel=0.01)
    assert found["first"]["kernel"].shape == (3, 3, 3, 23, 64)
    assert found["down_1_0_attention"]["cross"]["key"]["kernel"].shape == (768, 128)


def test_mini_is_small():
    assert count(shapes(MINI_UNET, 16, 21)) <= 1_500_000


@pytest.fixture(scope="module")
def tiny():
    """Apply function and parameters; weights that start at zero are random, so that all acts."""
    network = Unet(TINY)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes(TINY, 4, 3))
    random = np.random.default_rng(3)
    params = jax.tree.map(lambda a: random.normal(0, 0.3, a.shape).astype(np.float32), params)
    apply = jax.jit(lambda p, x, t, c: network.apply({"params": p}, x, t, c))
    return apply, params


@pytest.mark.slow
def test_guess_depends_on_grid_step_and_condition_of_its_own_example(tiny, new_key):
    apply, params = tiny
    x = jax.random.normal(new_key(), (2, 4, 4, 4, 3))
    steps, condition = jnp.array([10, 600]), jax.random.normal(new_key(), (2, 5))
    found = apply(params, x, steps, condition)
    assert found.shape == x.shape
    others = (
        apply(params, -x, steps, condition),
        apply(params, x, steps + 7, condition),
        apply(params, x, steps, -condition),
    )
    for other in others:
        assert np.abs(other - found).max() > 1e-3
    changed = apply(params, x.at[1].set(0.0), steps, condition)
    np.testing.assert_allclose(found[0], changed[0], atol=1e-5)


def test_layers_that_end_a_block_start_at_zero():
    """So that a new network guesses zero: its last layer is one of them."""
    started = Conv(2, zero=True).init(jax.random.key(1), jnp.ones((1, 3, 3, 3, 2)))
    np.testing.assert_array_equal(started["params"]["kernel"], 0.0)
    other = Conv(2).init(jax.random.key(1), jnp.ones((1, 3, 3, 3, 2)))
    assert np.abs(other["params"]["kernel"]).max() > 0


def test_step_embedding_is_cosines_then_sines():
    found = step_embedding(jnp.array([0, 7]), 6)
    rates = np.exp(-np.log(10_000) * np.arange(3) / 3)
    wanted = [[1, 1, 1, 0, 0, 0], [*np.cos(7 * rates), *np.sin(7 * rates)]]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"unet.groups = 32 does not divide 48 channels"):
        UnetConfig(width=48)
    with pytest.raises(ConfigError, match=r"unet.attended names level 3"):
        replace(TINY, attended=(3,))
