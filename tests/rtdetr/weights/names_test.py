"""Axes of arrays of PyTorch: the layer computes the same with what is made of them.

Square and asymmetric, so that the wrong order of axes has a right shape and wrong numbers.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from rtdetr.weights.names import Entry, entries
from tests.rtdetr.weights.folder import MODEL


def test_a_linear_layer_of_pytorch_computes_the_same_here():
    weight = np.array([[1.0, 2.0], [0.0, 1.0]])  # [out, in]: the first output adds twice the second
    x = np.array([3.0, 5.0])
    kernel = Entry("a.weight", "params/a/kernel", "dense").to_ours(weight)
    np.testing.assert_array_equal(x @ kernel, [3 + 2 * 5, 5])


def test_a_convolution_of_pytorch_computes_the_same_here():
    """As torch.nn.Conv2d is defined: out[o, y, x] = sum over i, r, c of w[o, i, r, c] · in."""
    draw = np.random.default_rng(0)
    weight = draw.integers(-4, 5, (3, 3, 3, 3))  # [out, in, row, column]
    image = draw.integers(-4, 5, (3, 5, 5))  # [channel, row, column]
    wanted = np.zeros((3, 3, 3))
    for y in range(3):
        for x in range(3):
            wanted[:, y, x] = np.einsum("oirc,irc->o", weight, image[:, y : y + 3, x : x + 3])
    kernel = Entry("a.weight", "params/a/kernel", "conv").to_ours(weight)
    found = jax.lax.conv_general_dilated(
        jnp.asarray(image.transpose(1, 2, 0)[None], jnp.float32),
        jnp.asarray(kernel, jnp.float32),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    # Whole numbers below 2**24 are exact in float32.
    np.testing.assert_array_equal(found[0], wanted.transpose(1, 2, 0))


def test_axes_go_back_as_they_came():
    for layout, shape in (("dense", (3, 3)), ("conv", (3, 3, 3, 3)), ("plain", (3, 3))):
        array = np.arange(np.prod(shape)).reshape(shape)
        entry = Entry("a", "a", layout)
        np.testing.assert_array_equal(entry.to_theirs(entry.to_ours(array)), array)


def test_every_kernel_and_nothing_else_has_axes_that_are_turned():
    """A square kernel that were called plain would load without a word."""
    for entry in entries(MODEL):
        assert (entry.layout != "plain") == entry.path.endswith("/kernel"), entry
