"""Samples: sorted, inside, where the weights are; the error bound holds where it says so."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.config import SamplerConfig
from hand_object.fields.density import laplace
from hand_object.render.error_bound import (
    error_bounded,
    least_distance,
    opacity_bound,
    smallest_beta,
    starting_beta,
)
from hand_object.render.sampling import importance, stratified
from hand_object.render.sdf_cache import build_cache, lookup, proposed, refreshed

pytestmark = pytest.mark.usefixtures("quick_compilation")
RAYS = 24
SMALL = SamplerConfig(samples=16, probes=32, extra=8, rounds=3)


@pytest.fixture(scope="module")
def spheres():
    """Rays past and through a sphere of radius 1 at depth 3: their distances from it."""
    offset = jnp.linspace(0, 1.5, RAYS)[:, None]

    def distance(z):
        return jnp.sqrt(jnp.square(z - 3.0) + jnp.square(offset)) - 1.0

    return distance, jnp.full(RAYS, 0.5), jnp.full(RAYS, 6.0)


def test_strata_hold_one_sample_each(new_key):
    near, far = jnp.full(RAYS, 1.0), jnp.full(RAYS, 3.0)
    for key in (None, new_key()):
        z = stratified(key, near, far, 10)
        index = np.floor((np.asarray(z) - 1.0) * 5).astype(int)
        np.testing.assert_array_equal(index, np.broadcast_to(np.arange(10), (RAYS, 10)))


def test_importance_follows_the_weights(new_key):
    edges = jnp.array([[0.0, 1.0, 1.5, 4.0]])
    weights = jnp.array([[1.0, 3.0, 0.0]])
    z = importance(new_key(), edges, weights, 4000)[0]
    assert np.all(np.diff(z) >= 0)
    # Strata leave less than one sample of error on each side.
    assert abs(np.sum(z < 1.0) - 1000) <= 1
    assert np.sum(z > 1.5) == 0
    regular = importance(None, edges, weights, 8)[0]
    expected = [0.25, 0.75, *(1 + (np.arange(6) + 0.5) / 12)]
    np.testing.assert_allclose(regular, expected, rtol=1e-6)


def test_without_weights_intervals_count_alike():
    z = importance(None, jnp.array([[0.0, 1.0, 3.0]]), jnp.zeros((1, 2)), 4)
    np.testing.assert_allclose(z, [[0.25, 0.75, 1.5, 2.5]], rtol=1e-6)


def test_least_distance_is_below_the_true_one(spheres, new_key):
    distance, near, far = spheres
    z = jnp.sort(stratified(new_key(), near, far, 40), axis=-1)
    bound = least_distance(z, distance(z))
    shares = jnp.linspace(0, 1, 50)
    fine = z[:, :-1, None] + jnp.diff(z)[..., None] * shares[None, None]
    true = jnp.min(jnp.abs(distance(fine.reshape(RAYS, -1))).reshape(fine.shape), axis=-1)
    # Rounding of Heron's formula: square root of a difference of terms of size 1.
    assert np.all(bound <= true + 3 * np.sqrt(np.finfo(np.float32).eps))
    assert np.mean(bound > 0) > 0.8


@pytest.mark.parametrize("beta", [0.02, 0.1])
def test_opacity_is_never_further_off_than_its_bound(beta, spheres, new_key):
    distance, near, far = spheres
    edges = jnp.sort(stratified(new_key(), near, far, 64), axis=-1)
    bound = opacity_bound(edges, distance(edges), jnp.full(RAYS, beta))
    delta = jnp.diff(edges)
    coarse = jnp.cumsum(laplace(distance(edges[:, :-1]), jnp.float32(beta)) * delta, axis=-1)
    fine_z = edges[:, :-1, None] + delta[..., None] * ((jnp.arange(64) + 0.5) / 64)[None, None]
    sigma = laplace(distance(fine_z.reshape(RAYS, -1)), jnp.float32(beta)).reshape(fine_z.shape)
    fine = jnp.cumsum(jnp.mean(sigma, axis=-1) * delta, axis=-1)
    error = np.abs(np.exp(-coarse) - np.exp(-fine))
    assert np.all(error <= np.maximum.accumulate(bound, axis=-1) + 1e-4)


def test_the_bound_is_the_published_formula():
    z, s, beta = np.array([0.0, 0.2, 0.3, 0.7]), np.array([0.3, 0.1, -0.02, -0.5]), 0.1
    d = np.array([0.1, 0.0, 0.02])  # the nearer end, and a change of sign in between
    delta = np.diff(z)
    sigma = np.where(s >= 0, 0.5 * np.exp(-np.abs(s) / beta), 1 - 0.5 * np.exp(-np.abs(s) / beta))
    expected, error, passed = [], 0.0, 0.0
    for i in range(3):
        error += np.exp(-d[i] / beta) * delta[i] ** 2 / (4 * beta**2)
        expected.append(np.exp(-passed) * np.expm1(error))
        passed += sigma[i] / beta * delta[i]
    z_1x4, s_1x4 = (jnp.asarray(a, jnp.float32)[None] for a in (z, s))
    got = opacity_bound(z_1x4, s_1x4, jnp.full(1, beta))
    np.testing.assert_allclose(got[0], expected, rtol=1e-5)


def test_bisection_finds_the_least_beta_that_holds(spheres):
    distance, near, far = spheres
    z = stratified(None, near, far, 64)
    high = starting_beta(z, SMALL.error)
    beta = smallest_beta(z, distance(z), jnp.float32(1e-3), high, SMALL)
    assert np.all(np.max(opacity_bound(z, distance(z), beta), axis=-1) <= SMALL.error * 1.001)
    hit = np.abs(np.linspace(0, 1.5, RAYS)) < 0.9
    assert np.all((beta > 1e-3)[hit] & (beta < high)[hit])
    wide = smallest_beta(z, distance(z), jnp.float32(5.0), jnp.maximum(high, 5.0), SMALL)
    np.testing.assert_array_equal(wide, np.full(RAYS, 5.0, np.float32))


def test_error_bounded_samples_are_sorted_and_gather_at_the_surface(spheres, new_key):
    distance, near, far = spheres
    run = jax.jit(lambda key: error_bounded(key, distance, near, far, jnp.float32(0.01), SMALL))
    z = run(new_key())
    assert z.shape == (RAYS, 16 + 8 + 1)
    assert np.all(np.diff(z) >= 0)
    assert np.all((z >= 0.5) & (z <= 6.0))
    np.testing.assert_array_equal(z[:, -1], far)
    hits = np.asarray(distance(jnp.full((RAYS, 1), 3.0)))[:, 0] < -0.5
    at_surface = np.sum(np.abs(distance(z)) < 0.15, axis=-1)
    # Evenly spread samples would be 2 or 3 there.
    assert np.min(at_surface[hits]) >= 5
    regular = np.asarray(run(None))
    assert np.min(np.sum(np.abs(distance(regular)) < 0.15, axis=-1)[hits]) >= 5


def test_the_smallest_beta_and_empty_rays_stay_finite():
    flat = jnp.zeros(3)
    run = jax.jit(
        lambda far, slope: error_bounded(
            None, lambda z: slope * (z - 3), flat, far, jnp.float32(1e-4), SMALL
        )
    )
    np.testing.assert_array_equal(run(flat, 1.0), np.zeros((3, 25)))
    assert np.all(np.isfinite(run(jnp.full(3, 6.0), 1e4)))


def ball(x):
    return jnp.linalg.norm(x, axis=-1) - 0.6


def test_the_cache_holds_the_distance_and_adds_what_lies_outside(new_key):
    cache = build_cache(ball, 24)
    x = jax.random.uniform(new_key(), (200, 3), minval=-1.0, maxval=1.0)
    # Trilinear error: an eighth of the squared cell times the curvature of each axis, 1 / |x|.
    np.testing.assert_allclose(lookup(cache, x), ball(x), atol=3 * (2.2 / 23) ** 2 / 8 / 0.15 * 1.0)
    outside = jnp.array([[3.1, 0.0, 0.0]])
    np.testing.assert_allclose(lookup(cache, outside), [0.5 + 2.0], atol=5e-3)


def test_axes_of_the_cache_are_not_exchanged():
    cache = build_cache(lambda x: x[:, 0] + 10 * x[:, 1] + 100 * x[:, 2], 8)
    x = jnp.array([[0.1, -0.3, 0.7]])
    np.testing.assert_allclose(lookup(cache, x), [0.1 - 3 + 70], rtol=1e-5)


def test_the_cache_is_made_anew_on_its_cadence():
    cache = jnp.zeros((8, 8, 8))
    run = jax.jit(lambda step: refreshed(cache, step, 10, ball))
    np.testing.assert_array_equal(run(5), cache)
    np.testing.assert_allclose(run(20), build_cache(ball, 8), atol=1e-6)


def test_proposed_samples_gather_at_the_surface_and_cover_the_rest(spheres, new_key):
    distance, near, far = spheres
    config = SamplerConfig(kind="proposal", samples=32, probes=64)
    z = jax.jit(lambda key: proposed(key, distance, near, far, jnp.float32(1e-3), config))(
        new_key()
    )
    assert z.shape == (RAYS, 33)
    assert np.all(np.diff(z) >= 0)
    hits = np.asarray(distance(jnp.full((RAYS, 1), 3.0)))[:, 0] < -0.5
    assert np.min(np.sum(np.abs(distance(z)) < 0.3, axis=-1)[hits]) >= 16
    empty = proposed(None, lambda z: z + 1, near, near, jnp.float32(1e-3), config)
    np.testing.assert_allclose(empty, np.full((RAYS, 33), 0.5), rtol=1e-6)
