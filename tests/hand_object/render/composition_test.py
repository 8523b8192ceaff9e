"""Composition: the additive one is the integral, the sorted one has the bias of the original."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.config import DensityConfig
from hand_object.render.composition import Samples, additive, compose, own_opacity
from hand_object.render.sampling import importance, stratified

pytestmark = pytest.mark.usefixtures("quick_compilation")
EXACT = DensityConfig(kind="laplace")
END = 3.0


def slab(low, high, sigma, key, samples=98):
    """A node of constant density between two depths, 1 value that is its identity."""
    z = jnp.sort(jax.random.uniform(key, (64, samples), maxval=END), axis=-1)
    z = jnp.concatenate([z, jnp.full((64, 1), END)], axis=-1)
    inside = (z[:, :-1] >= low) & (z[:, :-1] < high)
    return Samples(z, jnp.where(inside, sigma, 0.0), jnp.ones((64, samples, 1)))


def true_weights(sigma):
    """Hand slab .10 long, object slab .44, of which .04 lie in both."""
    alone, both, rest = 0.06 * sigma, 0.04 * sigma, 0.40 * sigma
    first = -math.expm1(-alone)
    second = math.exp(-alone) * -math.expm1(-2 * both)
    third = math.exp(-alone - 2 * both) * -math.expm1(-rest)
    return np.array([first + second / 2, second / 2 + third])


@pytest.mark.parametrize("sigma", [5, 20, 100])
def test_additive_composition_is_within_a_hundredth_of_the_truth(sigma, new_key):
    # Samples around the slabs: 98 a node, as where a sampler has found them.
    def near(low, high):
        z = jnp.linspace(0.9, 1.6, 98)[None] + 0.7 / 98 * jax.random.uniform(new_key(), (256, 98))
        z = jnp.concatenate([z, jnp.full((256, 1), END)], axis=-1)
        inside = (z[:, :-1] >= low) & (z[:, :-1] < high)
        return Samples(z, jnp.where(inside, float(sigma), 0.0), jnp.ones((256, 98, 1)))

    nodes = [near(1.0, 1.1), near(1.06, 1.5)]
    truth = true_weights(sigma)
    weights = jax.jit(lambda n: compose(n, EXACT, "additive").weights)(nodes)
    np.testing.assert_allclose(np.mean(weights, axis=0), truth, atol=0.01)


@pytest.mark.parametrize(
    ("sigma", "published"), [(5, (0.303, 0.584)), (20, (0.748, 0.252)), (100, (0.995, 0.005))]
)
def test_sorted_composition_has_the_published_bias(sigma, published, new_key):
    nodes = [drawn(2.0, 2.1, sigma, new_key()), drawn(2.06, 2.5, sigma, new_key())]
    weights = np.mean(jax.jit(lambda n: compose(n, EXACT, "hold_sort").weights)(nodes), axis=0)
    # The published figures hold for a sampler like this one, whose ends are not told.
    np.testing.assert_allclose(weights, published, atol=0.05)
    if sigma < 100:
        assert weights[0] < true_weights(sigma)[0] - 0.02


def drawn(low, high, sigma, key, end=6.0):
    """A slab with the samples of HOLD: 64 by weight, 32 over the whole ray, and both ends."""
    rays, keys = 256, jax.random.split(key)
    edges = jnp.broadcast_to(jnp.linspace(0, end, 513)[None], (rays, 513))
    middle = (edges[:, :-1] + edges[:, 1:]) / 2
    tau = jnp.where((middle >= low) & (middle < high), sigma * end / 512, 0.0)
    weights = jnp.exp(-(jnp.cumsum(tau, axis=-1) - tau)) * -jnp.expm1(-tau) + 1e-5
    near, far = jnp.zeros(rays), jnp.full(rays, end)
    parts = [
        importance(keys[0], edges, weights, 64),
        stratified(keys[1], near, far, 32),
        near[:, None],
        far[:, None],
    ]
    z = jnp.sort(jnp.concatenate(parts, axis=-1), axis=-1)
    inside = (z >= low) & (z < high)
    ends = jnp.concatenate([z, far[:, None]], axis=-1)
    return Samples(ends, jnp.where(inside, float(sigma), 0.0), jnp.ones((rays, 98, 1)))


def test_a_single_node_is_composed_alike_by_both(new_key):
    node = slab(1.0, 1.5, 3.0, new_key())
    both = [compose([node], EXACT, kind) for kind in ("additive", "hold_sort")]
    np.testing.assert_allclose(both[0].weights, both[1].weights, atol=1e-6)
    np.testing.assert_allclose(both[0].weights[:, 0], own_opacity(node, EXACT), atol=1e-6)


def test_weights_and_background_sum_to_one_and_order_does_not_matter(new_key):
    nodes = [slab(0.5, 1.0, 4.0, new_key()), slab(0.8, 2.0, 1.0, new_key(), samples=31)]
    result = additive(nodes, DensityConfig())
    np.testing.assert_allclose(
        np.sum(result.weights, axis=-1) + result.background, np.ones(64), atol=1e-5
    )
    swapped = additive(nodes[::-1], DensityConfig())
    np.testing.assert_allclose(result.weights, swapped.weights[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(result.values, swapped.values, atol=1e-6)


def test_empty_rays_are_transparent_with_finite_gradients():
    empty = Samples(jnp.zeros((4, 9)), jnp.full((4, 8), 100.0), jnp.ones((4, 8, 2)))

    def total(sigma):
        result = additive([empty._replace(sigma=sigma), empty], DensityConfig())
        return jnp.sum(result.values) + jnp.sum(result.background), result

    slopes, result = jax.grad(total, has_aux=True)(empty.sigma)
    np.testing.assert_array_equal(result.background, np.ones(4))
    np.testing.assert_array_equal(result.values, np.zeros((4, 2)))
    assert np.all(np.isfinite(slopes))
    slopes = jax.grad(lambda s: total(s)[0])(jnp.zeros((4, 8)))
    assert np.all(np.isfinite(slopes))


def test_a_node_in_front_hides_the_one_behind(new_key):
    front, back = slab(0.5, 1.0, 200.0, new_key()), slab(1.5, 2.0, 200.0, new_key())
    values = front._replace(values=2 * front.values)
    result = additive([values, back], DensityConfig())
    assert np.min(result.weights[:, 0]) > 0.999
    np.testing.assert_allclose(result.values[:, 0], np.full(64, 2.0), atol=1e-3)
    assert np.all((result.depth > 0.45) & (result.depth < 1.0))
    assert np.min(own_opacity(back, DensityConfig())) > 0.999


def test_bounded_depth_bounds_every_merged_interval(new_key):
    config = dataclasses.replace(DensityConfig(), depth_most=0.1)
    z = jnp.array([[0.0, 1.0, 2.0]])
    node = Samples(z, jnp.full((1, 2), 1e4), jnp.ones((1, 2, 1)))
    # Two nodes with the same samples share their intervals: two of them, at most 0.1 deep each.
    np.testing.assert_allclose(
        additive([node, node], config).background, [math.exp(-0.2)], rtol=1e-5
    )
