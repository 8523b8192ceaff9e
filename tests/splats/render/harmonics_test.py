"""Spherical harmonics against gsplat's torch reference and scipy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import sph_harm_y

from splats.gaussians.harmonic_basis import rgb_to_constant
from splats.render import harmonics
from splats.render.unit_vectors import unit_vectors
from tests.splats.render.scenes import FIXTURES


@pytest.fixture(scope="module")
def reference():
    return {k: jnp.asarray(v) for k, v in np.load(FIXTURES / "gsplat_subset.npz").items()
            if k.startswith("sh")}  # fmt: skip


@pytest.mark.parametrize("degree", range(5))
def test_values_and_gradients_match_gsplat_torch(reference, degree):
    count = (degree + 1) ** 2
    colors, vjp = jax.vjp(
        lambda d, c: harmonics.evaluate(d, c[:, :count]),
        reference["sh_dirs"],
        reference["sh_coeffs"],
    )
    direction_grad, coefficient_grad = vjp(reference["sh_ct"])
    close = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(colors, reference[f"sh{degree}_colors"], **close)
    np.testing.assert_allclose(direction_grad, reference[f"sh{degree}_grad_dirs"], **close)
    np.testing.assert_allclose(coefficient_grad, reference[f"sh{degree}_grad_coeffs"], **close)


def test_basis_is_the_real_part_of_scipys_harmonics_in_each_band(new_key):
    directions = unit_vectors(jax.random.normal(new_key(), (40, 3)))
    values = np.asarray(harmonics.basis(directions, 4))
    x, y, z = np.asarray(directions, np.float64).T
    polar, azimuth = np.arccos(z), np.arctan2(y, x)
    for degree in range(5):
        for order in range(-degree, degree + 1):
            complex_value = sph_harm_y(degree, abs(order), polar, azimuth)
            part = complex_value.imag if order < 0 else complex_value.real
            expected = part * (np.sqrt(2.0) if order else 1.0)
            found = values[:, degree * degree + degree + order]
            np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=2e-6)


def test_bands_above_a_traced_active_degree_contribute_nothing(new_key):
    directions = jax.random.normal(new_key(), (7, 3))
    coefficients = jax.random.normal(new_key(), (7, 16, 3))
    evaluate = jax.jit(harmonics.evaluate)
    for active in range(4):
        count = (active + 1) ** 2
        np.testing.assert_allclose(
            evaluate(directions, coefficients, active),
            harmonics.evaluate(directions, coefficients[:, :count]),
            atol=1e-5,
        )
    gradient = jax.grad(lambda c: harmonics.evaluate(directions, c, 1).sum())(coefficients)
    assert np.all(np.asarray(gradient[:, 4:]) == 0) and np.all(np.asarray(gradient[:, 0]) != 0)


def test_degree_zero_round_trips_a_color_from_every_side(new_key):
    rgb = jax.random.uniform(new_key(), (5, 3))
    coefficients = rgb_to_constant(rgb)[:, None, :]
    colors = harmonics.view_colors(jax.random.normal(new_key(), (5, 3)), jnp.ones(3), coefficients)
    np.testing.assert_allclose(colors, rgb, atol=1e-6)


def test_colors_are_never_negative(new_key):
    dark = jnp.full((5, 1, 3), -10.0)
    colors = harmonics.view_colors(jax.random.normal(new_key(), (5, 3)), jnp.ones(3), dark)
    np.testing.assert_array_equal(colors, 0.0)


def test_gradient_flows_through_the_direction_to_means_and_camera(new_key):
    means, center = jax.random.normal(new_key(), (6, 3)), jnp.array([0.3, 0.2, -2.0])
    coefficients = 0.1 * jax.random.normal(new_key(), (6, 16, 3))

    def total(means, center):
        return harmonics.view_colors(means, center, coefficients).sum()

    means_grad, center_grad = jax.grad(total, argnums=(0, 1))(means, center)
    np.testing.assert_allclose(center_grad, -means_grad.sum(axis=0), atol=1e-5)
    assert float(jnp.abs(means_grad).max()) > 1e-3


def test_a_gaussian_at_the_camera_center_has_finite_gradients():
    coefficients = jnp.ones((1, 16, 3))
    gradient = jax.grad(lambda m: harmonics.view_colors(m, jnp.zeros(3), coefficients).sum())(
        jnp.zeros((1, 3))
    )
    assert np.isfinite(gradient).all()


def test_a_wrong_number_of_coefficients_is_refused():
    with pytest.raises(ValueError, match="10 coefficients"):
        harmonics.evaluate(jnp.ones((1, 3)), jnp.ones((1, 10, 3)))
