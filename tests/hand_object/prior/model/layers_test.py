"""Convolutions of cubes against a sum by hand, and cutting into patches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.prior.model.layers import convolve, from_patches, to_patches, upsampled

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("side, stride, pad", [(3, 1, (1, 1)), (3, 2, (0, 1)), (1, 1, (0, 0))])
def test_convolution_is_the_sum_over_the_kernel_with_depth_first(new_key, side, stride, pad):
    """A kernel and a grid without any symmetry, so that exchanged axes would show."""
    shape = (1, 4, 6, 8, 2)
    x = np.asarray(jax.random.normal(new_key(), shape), np.float64)
    kernel = np.asarray(jax.random.normal(new_key(), (side, side, side, 2, 3)), np.float64)
    found = convolve(jnp.float32(x), jnp.float32(kernel), stride, pad)
    padded = np.pad(x, ((0, 0), pad, pad, pad, (0, 0)))
    sizes = [(n + sum(pad) - side) // stride + 1 for n in shape[1:4]]
    wanted = np.zeros((1, *sizes, 3))
    for i, j, k in np.ndindex(*sizes):
        cube = padded[0, i * stride :, j * stride :, k * stride :][:side, :side, :side]
        wanted[0, i, j, k] = np.einsum("abcx,abcxy->y", cube, kernel)
    # 54 products of numbers around 1, each rounded by 6e-8.
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_patches_come_back(new_key):
    x = jax.random.normal(new_key(), (2, 4, 6, 8, 3))
    cut = to_patches(x, 2)
    assert cut.shape == (2, 2, 3, 4, 24)
    np.testing.assert_array_equal(cut[1, 1, 2, 0].reshape(2, 2, 2, 3), x[1, 2:4, 4:6, 0:2])
    np.testing.assert_array_equal(from_patches(cut, 2), x)


def test_upsampling_repeats_each_voxel_along_each_axis(new_key):
    x = jax.random.normal(new_key(), (1, 2, 3, 1, 2))
    wanted = np.asarray(x).repeat(2, axis=1).repeat(2, axis=2).repeat(2, axis=3)
    np.testing.assert_array_equal(upsampled(x), wanted)
