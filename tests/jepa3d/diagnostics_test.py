"""The collapse panel on features whose answer is known."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa3d.diagnostics import (
    cosine_statistics,
    feature_spread,
    rank_me,
)

# Compiled as a whole: one by one, the operations take a compilation each.
COSINES, SPREAD = jax.jit(cosine_statistics), jax.jit(feature_spread)
RANK = jax.jit(rank_me, static_argnames="centered")
WIDTH = 96


def test_isotropic_features_have_nearly_full_rank(new_key):
    features = jax.random.normal(new_key(), (4096, WIDTH))
    assert float(RANK(features, centered=True)) > 0.97 * WIDTH
    assert float(RANK(features, centered=False)) > 0.97 * WIDTH


def test_orthonormal_columns_have_exactly_full_rank(new_key):
    columns = jnp.linalg.qr(jax.random.normal(new_key(), (512, WIDTH)))[0]
    assert float(RANK(columns, centered=False)) == pytest.approx(WIDTH, rel=1e-3)


def test_data_of_rank_eight_has_rank_eight(new_key):
    left = jnp.linalg.qr(jax.random.normal(new_key(), (1024, 8)))[0]
    right = jnp.linalg.qr(jax.random.normal(new_key(), (WIDTH, 8)))[0]
    assert float(RANK(left @ right.T, centered=False)) == pytest.approx(8.0, abs=0.01)


def test_only_the_uncentered_rank_sees_a_constant_plus_noise(new_key):
    noise = 1e-3 * jax.random.normal(new_key(), (4096, WIDTH))
    features = jnp.ones((1, WIDTH)) + noise
    assert float(RANK(features, centered=False)) < 1.5
    assert float(RANK(features, centered=True)) > 0.97 * WIDTH


def test_rank_agrees_with_numpy(new_key):
    features = np.array(jax.random.normal(new_key(), (64, 16))) * np.linspace(0, 1, 16)[None]
    share = np.linalg.svd(features, compute_uv=False)
    share = share / share.sum()
    expected = np.exp(-np.sum(share * np.log(share + 1e-12)))
    assert float(RANK(jnp.asarray(features), centered=False)) == pytest.approx(expected, rel=1e-4)


def test_spread_agrees_with_numpy_on_the_chosen_samples(new_key):
    features = np.array(jax.random.normal(new_key(), (200, 8))) * np.arange(8)[None] + 3.0
    chosen = np.arange(200) % 3 == 0
    spread = SPREAD(jnp.asarray(features), jnp.asarray(chosen))
    std = features[chosen].std(axis=0)
    assert float(spread.mean) == pytest.approx(std.mean(), rel=1e-4)
    assert float(spread.minimum) == pytest.approx(0.0, abs=1e-5)
    assert float(spread.dead_fraction) == pytest.approx(1 / 8)


def test_collapsed_features_have_no_relative_spread():
    assert float(SPREAD(jnp.full((32, 4), 2.0)).relative) == pytest.approx(0.0, abs=1e-6)


def brute_force_cosines(groups) -> float:
    cosines = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        for group in groups
        for a, b in itertools.permutations(group, 2)
    ]
    return float(np.mean(cosines))


def test_cosines_agree_with_all_pairs(new_key):
    features = np.array(jax.random.normal(new_key(), (3, 5, 7))) + 0.5
    found = COSINES(jnp.asarray(features))
    assert float(found.within_volume) == pytest.approx(brute_force_cosines(features), abs=1e-5)
    by_position = features.swapaxes(0, 1)
    assert float(found.same_position) == pytest.approx(brute_force_cosines(by_position), abs=1e-5)
    pooled = features.mean(axis=1)[None]
    assert float(found.between_volumes) == pytest.approx(brute_force_cosines(pooled), abs=1e-5)


def test_cosines_leave_background_tokens_out(new_key):
    features = np.array(jax.random.normal(new_key(), (2, 6, 4)))
    weights = np.zeros((2, 6), np.float32)
    weights[:, :3] = 1
    found = COSINES(jnp.asarray(features), jnp.asarray(weights))
    expected = brute_force_cosines(features[:, :3])
    assert float(found.within_volume) == pytest.approx(expected, abs=1e-5)


def test_collapsed_volumes_have_cosine_one():
    found = COSINES(jnp.ones((4, 6, 8)))
    np.testing.assert_allclose(np.array(found), 1.0, rtol=1e-5)
