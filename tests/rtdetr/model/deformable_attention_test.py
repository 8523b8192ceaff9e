"""Every way of sampling a map is bilinear interpolation, and has its derivatives."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from rtdetr.model import deformable_attention
from rtdetr.model.deformable_attention import LARGEST_ONEHOT, sample_maps, sampler

METHODS = ("gather", "packed", "onehot")
SIZES = ((5, 7), (3, 4), (1, 2))
POINTS = (3, 2, 1)
IMAGES, QUERIES, HEADS, CHANNELS = 2, 6, 2, 4


def some_case(points, low=-0.3, high=1.3):
    draw = np.random.default_rng(3)
    values = [draw.normal(size=(IMAGES, h * w, HEADS, CHANNELS)) for h, w in SIZES]
    locations = [draw.uniform(low, high, (IMAGES, QUERIES, HEADS, n, 2)) for n in points]
    weights = [draw.normal(size=(IMAGES, QUERIES, HEADS, n)) for n in points]
    return jax.tree.map(lambda x: x.astype(np.float32), (values, locations, weights))


def hats(locations, size):
    """Shares of all pixels in each point, and their derivatives by x and y: `[..., P, N]` fp64."""
    height, width = size
    x = locations[..., :1].astype(np.float64) * width - 0.5 - np.arange(width)
    y = locations[..., 1:].astype(np.float64) * height - 0.5 - np.arange(height)
    (across, slope_x), (down, slope_y) = (
        (np.maximum(0, 1 - np.abs(d)), -np.sign(d) * (np.abs(d) < 1)) for d in (x, y)
    )

    def outer(rows, columns):
        product = rows[..., :, None] * columns[..., None, :]
        return product.reshape(*product.shape[:-2], height * width)

    return outer(down, across), outer(down, slope_x) * width, outer(slope_y, across) * height


def expected(values, locations, weights, cotangent):
    """The sum over points, and the derivatives of <sum, cotangent>, written out in float64."""
    total, by_values, by_locations, by_weights = 0.0, [], [], []
    for value, location, weight, size in zip(values, locations, weights, SIZES):
        share, slope_x, slope_y = hats(location, size)
        total = total + np.einsum("bqhp,bqhpn,bnhd->bqhd", weight, share, value)
        read = np.einsum("bqhd,bnhd->bqhn", cotangent, value)
        by_values.append(np.einsum("bqhp,bqhpn,bqhd->bnhd", weight, share, cotangent))
        by_weights.append(np.einsum("bqhpn,bqhn->bqhp", share, read))
        slopes = np.stack([slope_x, slope_y], axis=-1)
        by_locations.append(np.einsum("bqhp,bqhpnc,bqhn->bqhpc", weight, slopes, read))
    return total, (by_values, by_locations, by_weights)


@pytest.mark.parametrize("method", METHODS)
def test_values_and_derivatives_are_those_of_bilinear_interpolation(method):
    values, locations, weights = some_case(POINTS)
    shape = (IMAGES, QUERIES, HEADS, CHANNELS)
    cotangent = np.random.default_rng(4).normal(size=shape).astype(np.float32)

    def sampled(*case):
        return sample_maps(case[0], SIZES, case[1], case[2], method)

    @jax.jit
    def both(case, cotangent):
        found, pull = jax.vjp(sampled, *case)
        return found, pull(cotangent)

    found, slopes = both((values, locations, weights), cotangent)
    wanted, derivatives = expected(values, locations, weights, cotangent)
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    for ours, theirs in zip(jax.tree.leaves(slopes), jax.tree.leaves(derivatives)):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_points_far_outside_are_nothing_and_have_no_derivative(method):
    values, locations, weights = some_case(POINTS)

    @jax.jit
    @jax.value_and_grad
    def total(far):
        away = [jnp.full_like(x, 0.5).at[..., 1].set(far) for x in locations]
        return jnp.sum(jnp.square(sample_maps(values, SIZES, away, weights, method)))

    for far in (-1e6, -2.0, 3.0, 1e6, 3e38):
        assert total(far) == (0, 0)


@pytest.mark.parametrize("method", METHODS)
def test_the_center_of_a_pixel_is_that_pixel_up_to_the_corners_of_the_map(method):
    height, width = SIZES[0]
    value = np.arange(height * width, dtype=np.float32).reshape(1, -1, 1, 1)
    y, x = np.divmod(np.arange(height * width), width)
    at = np.stack([(x + 0.5) / width, (y + 0.5) / height], axis=-1).astype(np.float32)
    one = np.ones((1, len(at), 1, 1), np.float32)
    sampled = jax.jit(lambda v, x: sample_maps([v], SIZES[:1], [x], [one], method))
    found = sampled(value, at.reshape(1, -1, 1, 1, 2))
    np.testing.assert_allclose(found[0, :, 0, 0], value[0, :, 0, 0], atol=1e-4)


def test_the_platform_decides_where_nothing_is_asked_for(monkeypatch):
    small, large = (4, 4), (LARGEST_ONEHOT, 2)
    choices = dict(cpu=("gather", "gather"), gpu=("gather", "gather"), tpu=("onehot", "packed"))
    for name, wanted in choices.items():
        monkeypatch.setattr(deformable_attention, "platform", lambda name=name: name)
        found = [sampler("auto", size) for size in (small, large)]
        assert found == [sampler(method, small) for method in wanted]


@pytest.mark.parametrize("method", METHODS)
def test_devices_sample_their_own_images_without_a_word(method):
    mesh = jax.make_mesh((4,), ("data",))
    placed = NamedSharding(mesh, PartitionSpec("data"))
    case = jax.tree.map(lambda x: np.concatenate([x, x]), some_case(POINTS))

    def total(values, locations, weights):
        return jnp.sum(sample_maps(values, SIZES, locations, weights, method), axis=(1, 2, 3))

    def both(*case):
        found, pull = jax.vjp(total, *case)
        return found, pull(found)

    placed_case = jax.device_put(case, placed)
    text = jax.jit(both).lower(*placed_case).compile().as_text()
    assert not re.findall(r"all-\w+|collective-\w+|reduce-scatter", text)
