"""Relocation, growth and noise against formulas written out in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from splats.gaussians import densify_mcmc
from tests.splats.populations import make_population


def quadrature(opacity, copies):
    """(2 / sqrt(pi)) * integral over [0, 4.5] of 1 - (1 - o' exp(-t^2))^n, midpoint, float64."""
    t = (np.arange(64) + 0.5) * 4.5 / 64
    inner = 1 - (1 - opacity[:, None] * np.exp(-(t**2))[None, :]) ** copies[:, None]
    return 2 / math.sqrt(math.pi) * inner.sum(axis=1) * 4.5 / 64


def relocation_loops(opacity, scale, n):
    """The published double sum (Kheradmand et al. 2024, equation 9), one Gaussian, float64."""
    new = 1 - (1 - opacity) ** (1 / n)
    total = 0.0
    for i in range(1, n + 1):
        for k in range(i):
            total += math.comb(i - 1, k) * (-1) ** k / math.sqrt(k + 1) * new ** (k + 1)
    return new, scale * opacity / total


def test_stacked_integral_agrees_with_quadrature_for_all_opacities_and_counts():
    opacity, copies = np.meshgrid(
        np.concatenate([np.linspace(0.02, 0.99, 40), [0.999, 0.999999]]), np.arange(1, 52)
    )
    opacity, copies = opacity.ravel(), copies.ravel()
    each = 1 - (1 - opacity) ** (1 / copies)
    found = densify_mcmc.stacked_integral(
        jnp.asarray(each, jnp.float32), jnp.asarray(copies, jnp.int32)
    )
    np.testing.assert_allclose(found, quadrature(each, copies), rtol=2e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20, 51])
@pytest.mark.parametrize("opacity", [0.02, 0.3, 0.9, 0.999])
def test_division_equals_the_published_double_sum(n, opacity):
    scale = np.array([0.1, 0.5, 2.0])
    new, new_scale = densify_mcmc.divide_among_copies(
        jnp.array([opacity]), jnp.asarray(scale[None], jnp.float32), jnp.array([n]), 1e-6
    )
    expected, expected_scale = relocation_loops(opacity, scale, n)
    np.testing.assert_allclose(new[0], expected, rtol=1e-4)
    np.testing.assert_allclose(new_scale[0], expected_scale, rtol=3e-4)


def test_division_clamps_counts_and_opacities():
    scale = jnp.ones((1, 3))
    many = densify_mcmc.divide_among_copies(jnp.array([0.6]), scale, jnp.array([900]), 0.005)
    limit = densify_mcmc.divide_among_copies(jnp.array([0.6]), scale, jnp.array([51]), 0.005)
    np.testing.assert_array_equal(many[0], limit[0])
    faint, _ = densify_mcmc.divide_among_copies(jnp.array([0.02]), scale, jnp.array([51]), 0.005)
    np.testing.assert_allclose(faint, 0.005, rtol=1e-6)


def test_draws_follow_the_weights_across_blocks_and_never_hit_zero_weight(new_key):
    weights = jax.random.uniform(new_key(), (5000,)) * (jnp.arange(5000) % 3 != 0)
    draws = densify_mcmc.draw_rows(weights, 400_000, new_key())
    counts = np.bincount(np.asarray(draws), minlength=5000)
    assert np.all(counts[::3] == 0)
    expected = np.asarray(weights / weights.sum()) * 400_000
    z = (counts - expected)[expected > 0] / np.sqrt(expected[expected > 0])
    assert abs(z.mean()) < 0.1 and 0.9 < z.std() < 1.1


def test_draws_resolve_single_rows_among_millions(new_key):
    weights = jnp.full(2_000_000, 0.5).at[1_999_999].set(1e6)
    draws = densify_mcmc.draw_rows(weights, 100_000, new_key())
    tail = np.asarray(draws) == 1_999_999
    assert abs(tail.mean() - 0.5) < 0.01
    rest = np.asarray(draws)[~tail]
    assert len(np.unique(rest)) > 0.97 * len(rest)


def test_relocation_moves_exactly_the_dead_and_preserves_the_others(new_key):
    opacity = jnp.where(jnp.arange(64) % 4 == 0, 0.001, jnp.linspace(0.1, 0.9, 64))
    before = make_population(new_key(), 64, 48, opacity)
    after, moved = jax.jit(densify_mcmc.relocate)(before, new_key())
    dead = np.asarray(before.alive) & (np.arange(64) % 4 == 0)
    assert moved == dead.sum() == 12
    np.testing.assert_array_equal(after.alive, before.alive)
    means = np.asarray(before.gaussians["means"])
    sources = np.array(
        [np.flatnonzero((means == m).all(1))[0] for m in np.asarray(after.gaussians["means"])]
    )
    assert not np.any(dead[sources[dead]]) and np.all(np.asarray(before.alive)[sources[dead]])
    touched = dead.copy()
    touched[sources[dead]] = True
    for slot in np.flatnonzero(dead):
        source = sources[slot]
        n = 1 + np.sum(sources[dead] == source)
        new, new_scale = relocation_loops(
            float(opacity[source]), np.exp(np.asarray(before.gaussians["scales"][source])), n
        )
        for row in (slot, source):
            got = jax.nn.sigmoid(after.gaussians["opacities"][row])
            np.testing.assert_allclose(got, new, rtol=1e-4)
            np.testing.assert_allclose(
                jnp.exp(after.gaussians["scales"][row]), new_scale, rtol=3e-4
            )
        for name in ("quats", "sh0"):
            np.testing.assert_array_equal(
                after.gaussians[name][slot], before.gaussians[name][source]
            )
    for part in ("mu", "nu"):
        for name, leaf in getattr(after, part).items():
            assert np.all(np.asarray(leaf)[touched] == 0), name
    for part in ("gaussians", "mu", "nu"):
        for name, leaf in getattr(after, part).items():
            original = np.asarray(getattr(before, part)[name])
            np.testing.assert_array_equal(np.asarray(leaf)[~touched], original[~touched])


def test_relocation_without_any_living_gaussian_changes_nothing(new_key):
    before = make_population(new_key(), 16, 16, jnp.full(16, 0.001))
    after, moved = densify_mcmc.relocate(before, new_key())
    assert moved == 0
    jax.tree.map(np.testing.assert_array_equal, before, after)


@pytest.mark.parametrize(
    ("alive", "cap", "expected"), [(40, 1000, 42), (40, 41, 41), (19, 1000, 19), (20, 1000, 21)]
)
def test_growth_reaches_the_smaller_of_cap_and_five_percent(new_key, alive, cap, expected):
    before = make_population(new_key(), 64, alive, jnp.full(64, 0.4))
    after, added = densify_mcmc.grow(before, new_key(), cap)
    assert int(after.alive.sum()) == expected == alive + int(added)
    assert np.all(np.asarray(after.alive)[:alive])


def test_growth_stops_at_the_number_of_slots(new_key):
    before = make_population(new_key(), 64, 63, jnp.full(64, 0.4))
    after, added = densify_mcmc.grow(before, new_key(), 1000)
    assert int(added) == 1 and bool(after.alive.all())


def test_noise_is_the_covariance_times_a_gated_normal(new_key):
    population = make_population(new_key(), 50, 50, jnp.linspace(0.001, 0.2, 50))
    rows = jnp.arange(50) < 30
    key = new_key()
    moved = densify_mcmc.add_noise(population.gaussians, rows, jnp.float32(1e-3), key)
    normal = np.asarray(jax.random.normal(key, (50, 3)), np.float64)
    opacity = np.linspace(0.001, 0.2, 50)
    for i in range(50):
        w, x, y, z = np.asarray(population.gaussians["quats"][i], np.float64) / np.linalg.norm(
            population.gaussians["quats"][i]
        )
        k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        rotation = np.eye(3) + 2 * w * k + 2 * k @ k
        half = rotation @ np.diag(np.exp(np.asarray(population.gaussians["scales"][i])))
        gate = 1 / (1 + np.exp(100 * (opacity[i] - 0.005))) * (i < 30)
        expected = half @ half.T @ (normal[i] * gate * 5e5 * 1e-3)
        step = np.asarray(moved[i] - population.gaussians["means"][i])
        np.testing.assert_allclose(
            step, expected, rtol=2e-3, atol=1e-5 + 1e-6 * abs(expected).max()
        )
