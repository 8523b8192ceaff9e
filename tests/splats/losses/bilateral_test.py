"""Bilateral grids against scipy's interpolation."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import map_coordinates

from splats.losses import bilateral


def test_identity_grids_leave_images_alone(new_key):
    image = jax.random.uniform(new_key(), (20, 30, 3))
    np.testing.assert_allclose(
        bilateral.apply_grid(bilateral.identity_grids(1)[0], image), image, atol=1e-6
    )


def test_slicing_equals_scipy_trilinear_interpolation(new_key):
    grid = jax.random.normal(new_key(), (8, 16, 16, 12))
    image = jax.random.uniform(new_key(), (24, 31, 3))
    found = bilateral.apply_grid(grid, image)
    colors = np.asarray(image, np.float64)
    luma = colors @ np.array([0.299, 0.587, 0.114])
    y, x = np.meshgrid((np.arange(24) + 0.5) / 24, (np.arange(31) + 0.5) / 31, indexing="ij")
    place = np.stack([luma * 7, y * 15, x * 15])
    affine = np.stack(
        [map_coordinates(np.asarray(grid[..., k], np.float64), place, order=1) for k in range(12)],
        axis=-1,
    ).reshape(24, 31, 3, 4)
    expected = np.einsum("hwij,hwj->hwi", affine[..., :3], colors) + affine[..., 3]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_slicing_has_finite_gradients_at_the_borders_of_luma():
    grid = bilateral.identity_grids(1)[0]
    image = jnp.stack([jnp.zeros((4, 4)), jnp.ones((4, 4)), jnp.full((4, 4), 1.7)], axis=-1)
    gradient = jax.grad(lambda g, i: jnp.sum(bilateral.apply_grid(g, i) ** 2), argnums=(0, 1))
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in gradient(grid, image))


def test_total_variation_is_zero_for_constant_grids_and_known_for_a_ramp():
    assert float(bilateral.total_variation(bilateral.identity_grids(3))) == 0.0
    ramp = jnp.zeros((1, 8, 16, 16, 12)) + 0.5 * jnp.arange(16.0)[None, None, None, :, None]
    np.testing.assert_allclose(bilateral.total_variation(ramp), 0.25, rtol=1e-6)
