"""Densities: exact where it matters, finite everywhere, and opaque where the original was not."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.config import DensityConfig
from hand_object.fields.density import (
    beta_of,
    beta_start,
    density,
    interval_density,
    laplace,
    neus_depth,
    opacity,
    optical_depth,
)

KINDS = ("laplace", "laplace_clamped", "bounded_opacity", "neus")
SCENE_UNIT = 0.213  # meters, of HOLD's HO3D sequences


def test_density_falls_from_its_most_to_zero():
    sdf, beta = jnp.linspace(-1, 1, 2001), jnp.float32(0.05)
    sigma = laplace(sdf, beta)
    assert np.all(np.diff(sigma) <= 0)
    anchors = laplace(jnp.array([-1.0, 0.0, 1.0]), beta)
    np.testing.assert_allclose(anchors, [20, 10, 0], atol=1e-6)


@pytest.mark.parametrize("beta", [1e-4, 0.1])
def test_the_derivative_at_the_surface_is_exact(beta):
    slope, by_beta = jax.grad(laplace, argnums=(0, 1))(jnp.float32(0), jnp.float32(beta))
    np.testing.assert_allclose(slope, -0.5 / beta**2, rtol=1e-6)
    np.testing.assert_allclose(by_beta, -0.5 / beta**2, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_derivatives_are_finite_for_any_distance(kind, dtype):
    # The original counted 19 million infinities here and clamped them away.
    config = DensityConfig(kind=kind)
    sizes = np.concatenate([[0.0], np.geomspace(1e-6, 1e4, 41)])
    sdf = jnp.asarray(np.sort(np.concatenate([-sizes, sizes])), dtype)
    betas = jnp.asarray([1e-4, 1e-3, 0.1, 10], dtype)

    def depths(near, far, beta):
        if kind == "neus":
            return opacity(neus_depth(near, far, beta))
        step = jnp.asarray(0.05, dtype)
        return opacity(optical_depth(density(near, beta, config), step, config))

    def everything(near, far, beta):
        value, slopes = jax.value_and_grad(depths, argnums=(0, 1, 2))(near, far, beta)
        return value, slopes

    pairs = jnp.stack(jnp.meshgrid(sdf, sdf, betas, indexing="ij")).reshape(3, -1)
    values, slopes = jax.jit(jax.vmap(everything))(*pairs)
    assert values.dtype == dtype
    for array in (values, *slopes):
        assert np.all(np.isfinite(np.asarray(array, np.float32)))
    assert np.all((values >= 0) & (values <= 1))


def opacity_of_slab(thickness, beta, config, *, fog):
    """As the original measures: distances in meters, lengths in scene units.

    Fog: also what lies in front of and behind the slab.
    """
    reach = (20 * beta + 3 * thickness) if fog else 0.0
    edges = np.linspace(-reach, thickness + reach, 200_001)
    middle = (edges[:-1] + edges[1:]) / 2
    sdf = np.maximum(-middle, middle - thickness)
    sigma = density(jnp.asarray(sdf, jnp.float32), jnp.float32(beta), config)
    tau = np.sum(np.asarray(sigma, np.float64)) * (edges[1] - edges[0]) / SCENE_UNIT
    return -math.expm1(-tau)


@pytest.mark.parametrize(
    ("thickness", "beta", "exact", "clamped", "with_fog"),
    [
        (0.015, 0.003, 1.000, 0.068, 0.215),
        (0.03, 0.01, 1.000, 0.131, 0.452),
        (0.06, 0.1, 0.798, 0.245, 0.935),
        (0.06, 0.001, 1.000, 0.245, 0.295),
    ],
)
def test_a_clamped_density_cannot_make_a_finger_opaque(thickness, beta, exact, clamped, with_fog):
    free, held = DensityConfig(kind="laplace"), DensityConfig(kind="laplace_clamped")
    half = 6e-4  # of the last digit of the published figures, and the quadrature
    assert opacity_of_slab(thickness, beta, free, fog=False) == pytest.approx(exact, abs=half)
    assert opacity_of_slab(thickness, beta, held, fog=False) == pytest.approx(clamped, abs=half)
    assert opacity_of_slab(thickness, beta, held, fog=True) == pytest.approx(with_fog, abs=half)


def test_bounded_depth_is_the_exact_one_where_it_is_small_and_never_above_its_most():
    config = DensityConfig()
    sigma, delta = jnp.float32(0.2), jnp.float32(0.05)
    # The first neglected term of the series is tau^2 / (2 most).
    np.testing.assert_allclose(optical_depth(sigma, delta, config), 0.01, atol=0.01**2 / 39)
    deep = optical_depth(jnp.float32(1e4), jnp.float32(12.0), config)
    assert float(deep) == config.depth_most
    assert jax.grad(lambda s: optical_depth(s, jnp.float32(1.0), config))(jnp.float32(100)) > 0


def test_neus_is_the_quotient_of_logistic_functions():
    near, far, beta = jnp.array([0.3, 0.01, -0.02]), jnp.array([0.1, -0.02, 0.01]), 0.05
    with jax.enable_x64(True):
        logistic = 1 / (1 + np.exp(-np.stack([near, far]).astype(np.float64) / beta))
    expected = np.clip((logistic[0] - logistic[1]) / logistic[0], 0, 1)
    got = opacity(neus_depth(near, far, jnp.float32(beta)))
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert expected[2] == 0  # leaving the surface adds nothing


def test_neus_density_times_length_is_its_depth():
    config = DensityConfig(kind="neus")
    sdf = jnp.array([[0.2, 0.05, -0.1]])
    z = jnp.array([[0.0, 0.1, 0.4, 0.5]])
    sigma = interval_density(sdf, z, jnp.float32(0.05), config)
    depth = neus_depth(sdf[:, :-1], sdf[:, 1:], jnp.float32(0.05))
    np.testing.assert_allclose(sigma[:, :2] * jnp.diff(z)[:, :2], depth, rtol=1e-6)
    assert float(sigma[0, 2]) == 0


def test_beta_starts_where_it_is_set_and_never_goes_below_its_least():
    config = DensityConfig(beta=0.2, beta_least=1e-3)
    np.testing.assert_allclose(beta_of(jnp.float32(beta_start(config)), config), 0.2, rtol=1e-6)
    assert float(beta_of(jnp.float32(-1e4), config)) == np.float32(1e-3)


def test_only_the_clamped_kind_is_clamped():
    sdf, beta = jnp.float32(-1.0), jnp.float32(1e-3)
    for kind in KINDS:
        config = dataclasses.replace(DensityConfig(), kind=kind)
        expected = 1.0 if kind == "laplace_clamped" else 1000.0
        np.testing.assert_allclose(density(sdf, beta, config), expected, rtol=1e-6)
