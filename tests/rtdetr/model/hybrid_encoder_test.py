"""Attention over a padded map is that over the map alone; fusion keeps cells where they are."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtdetr.model.hybrid_encoder import AttentionLayer, RepVgg, doubled
from rtdetr.model.positions import position_embedding
from tests.rtdetr.model.tiny import CONFIG, stirred

ENCODER = CONFIG.encoder
DRAW = np.random.default_rng(8)


@pytest.mark.parametrize("order", ["y_major", "x_major"])
def test_attention_on_a_padded_map_is_that_on_the_map_alone(order):
    config = dataclasses.replace(ENCODER, positions=order)
    layer, (height, width), (high, wide) = AttentionLayer(config), (3, 4), (5, 7)
    x = DRAW.normal(size=(1, high, wide, 16)).astype(np.float32)
    part = np.ascontiguousarray(x[:, :height, :width])
    valid = np.zeros((1, high, wide), bool)
    valid[:, :height, :width] = True

    def table(rows, columns):
        return position_embedding(rows, columns, 16, order)[None]

    params = stirred(layer.init(jax.random.key(0), part.reshape(1, -1, 16), table(3, 4), None))
    alone = layer.apply(params, part.reshape(1, -1, 16), table(height, width), None)
    padded = layer.apply(params, x.reshape(1, -1, 16), table(high, wide), valid.reshape(1, -1))
    found = np.asarray(padded).reshape(1, high, wide, 16)[:, :height, :width]
    difference = np.abs(found - np.asarray(alone).reshape(part.shape)).max()
    # The authors' order puts cells elsewhere once the map grows.
    assert difference < 1e-5 if order == "y_major" else difference > 1e-3


def test_doubling_repeats_every_cell_in_its_place():
    x = DRAW.normal(size=(1, 2, 3, 1)).astype(np.float32)
    np.testing.assert_array_equal(
        doubled(jnp.asarray(x))[0], np.kron(x[0, ..., 0], np.ones((2, 2)))[..., None]
    )


def test_both_branches_of_a_block_are_one_convolution():
    x = DRAW.normal(size=(1, 4, 5, 6)).astype(np.float32)
    variables = stirred(RepVgg().init(jax.random.key(0), x, False))
    variables["statistics"] = jax.tree.map(jnp.square, variables["statistics"])
    variables = jax.tree.map(np.asarray, variables)
    kernel, shift = np.zeros((3, 3, 6, 6)), np.zeros(6)
    for name, where in (("conv_3", np.s_[:, :]), ("conv_1", np.s_[1:2, 1:2])):
        params, kept = variables["params"][name], variables["statistics"][name]["norm"]
        factor = params["norm"]["scale"] / np.sqrt(kept["var"] + 1e-5)
        kernel[where] += params["kernel"] * factor
        shift += params["norm"]["bias"] - kept["mean"] * factor
    padded = np.pad(x[0].astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
    total = np.einsum("hwiyx,yxio->hwo", windows, kernel) + shift
    wanted = total / (1 + np.exp(-total))
    np.testing.assert_allclose(RepVgg().apply(variables, x, False)[0], wanted, atol=1e-5)
