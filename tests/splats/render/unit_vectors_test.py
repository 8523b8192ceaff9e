"""Directions have a finite derivative, however short the vector is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from splats.render.unit_vectors import unit_vectors


@pytest.mark.parametrize("length", [0.0, 1e-20, 1e-15, 1e-13, 3e-12, 1e-6, 1.0, 1e15])
def test_direction_and_derivative_are_finite_at_every_length(length):
    vector = jnp.float32(length) * jnp.array([0.6, -0.8, 0.0])
    found, pullback = jax.vjp(unit_vectors, vector)
    (gradient,) = pullback(jnp.ones(3))
    assert np.isfinite(found).all() and np.isfinite(gradient).all()
    # Two roundings in the square and one in the root.
    expected = 1.0 if length > 2e-12 else 0.0
    np.testing.assert_allclose(np.linalg.norm(found), expected, atol=4e-7)
