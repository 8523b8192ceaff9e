"""Norms, convolutions and pools do what PyTorch's do."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtdetr.model.backbone import average_pool, max_pool
from rtdetr.model.layers import Attention, BatchNorm, Dense, LayerNorm, convolve

DRAW = np.random.default_rng(5)


def some(*shape):
    return DRAW.normal(2, 3, shape).astype(np.float32)


def test_training_normalizes_by_the_batch_and_keeps_an_unbiased_variance():
    x = some(2, 3, 4, 5)
    variables = BatchNorm().init(jax.random.key(0), x, False)
    assert not np.asarray(variables["statistics"]["mean"]).any()
    found, updated = BatchNorm().apply(variables, x, True, mutable=["statistics"])
    rows = x.reshape(-1, 5).astype(np.float64)
    mean, variance = rows.mean(axis=0), rows.var(axis=0)
    np.testing.assert_allclose(found, (x - mean) / np.sqrt(variance + 1e-5), atol=1e-5)
    kept = updated["statistics"]
    np.testing.assert_allclose(kept["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(kept["var"], 0.9 + 0.1 * rows.var(axis=0, ddof=1), rtol=1e-5)


def test_evaluation_normalizes_by_the_running_statistics():
    x, mean, scale, bias = some(2, 3, 4, 5), some(5), some(5), some(5)
    variance = np.square(some(5)) + 0.1
    params = {"scale": scale, "bias": bias}
    statistics = {"mean": mean, "var": variance}
    found = BatchNorm().apply({"params": params, "statistics": statistics}, x, False)
    wanted = (x - mean) / np.sqrt(variance.astype(np.float64) + 1e-5) * scale + bias
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_frozen_norm_is_the_same_in_training_and_has_nothing_to_train():
    x = some(2, 3, 4, 5)
    variables = BatchNorm(frozen=True).init(jax.random.key(0), x, True)
    assert "params" not in variables and set(variables["statistics"]) == {
        "mean", "var", "scale", "bias",
    }  # fmt: skip
    statistics = {name: np.square(some(5)) + 0.1 for name in variables["statistics"]}
    frozen = BatchNorm(frozen=True)
    found, updated = frozen.apply({"statistics": statistics}, x, True, mutable=["statistics"])
    np.testing.assert_array_equal(found, frozen.apply({"statistics": statistics}, x, False))
    jax.tree.map(np.testing.assert_array_equal, updated["statistics"], statistics)
    slope = jax.grad(lambda s: jnp.sum(frozen.apply({"statistics": s}, x, True)))(statistics)
    assert not np.asarray(slope["mean"]).any() and not np.asarray(slope["var"]).any()


def test_a_norm_over_a_vector_is_that_of_pytorch():
    x = 1e-3 * some(2, 7)  # so small that the epsilon counts
    variables = LayerNorm().init(jax.random.key(0), x)
    wide = x.astype(np.float64)
    wanted = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(LayerNorm().apply(variables, x), wanted, atol=1e-6)


@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_pad_both_sides_alike(side, stride):
    x, kernel = some(1, 6, 8, 2), some(side, side, 2, 3)
    pad = (side - 1) // 2
    padded = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    wanted = np.zeros((1, 6 // stride, 8 // stride, 3))
    for row, column in np.ndindex(wanted.shape[1:3]):
        top, left = row * stride, column * stride
        window = padded[0, top : top + side, left : left + side]
        wanted[0, row, column] = np.einsum("yxi,yxio->o", window, kernel)
    np.testing.assert_allclose(convolve(x, kernel, stride), wanted, atol=1e-4)


def test_the_largest_of_a_window_is_never_its_padding():
    x = -np.abs(some(1, 4, 6, 2)) - 1
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    np.testing.assert_array_equal(max_pool(jnp.asarray(x)), windows.max((-1, -2))[:, ::2, ::2])


def test_averages_are_of_four_neighbors():
    x = some(1, 4, 6, 2)
    wanted = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
    np.testing.assert_allclose(average_pool(jnp.asarray(x)), wanted, rtol=1e-6, atol=1e-6)


def test_attention_sees_what_is_allowed_only():
    query, key, value = (some(1, 4, 8) for _ in range(3))
    attention = Attention(2)
    variables = attention.init(jax.random.key(1), query, key, value, None)
    allowed = np.array([True, True, False, True]).reshape(1, 1, 1, 4)
    found = attention.apply(variables, query, key, value, allowed)
    kept = np.array([0, 1, 3])
    alone = attention.apply(variables, query, key[:, kept], value[:, kept], None)
    np.testing.assert_allclose(found, alone, atol=1e-5)


def test_matrices_and_convolutions_start_as_those_of_pytorch():
    kernel = Dense(400).init(jax.random.key(2), jnp.zeros((1, 300)))["params"]["kernel"]
    bound = 300**-0.5
    assert 0.99 * bound < float(jnp.abs(kernel).max()) <= bound
    assert float(jnp.std(kernel)) == pytest.approx(bound / 3**0.5, rel=0.02)
