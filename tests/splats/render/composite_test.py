"""Compositing against float64 references, a dense compositor and finite differences."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from splats.render.rasterize import rasterize, resolve_loop_shape, resolve_tile_size
from splats.render.tile_loop import deal_tiles
from splats.render.tiles import build_pairs
from tests.rounding import rounding_bounds
from tests.splats.render.dense import dense_composite
from tests.splats.render.scenes import composite_fixture
from tests.splats.render.tiles_test import screen_gaussians

ARGUMENTS = ("means2d", "conics", "colors", "opacities", "background")


def pairs_of(inputs, width, height, tile_size, capacity=4000):
    """Pairs with exact extents recomputed from the conics."""
    a, b, c = inputs["conics"].T
    level = 2 * jnp.log(jnp.maximum(255 * inputs["opacities"], 1.0))
    extents = jnp.sqrt(level[:, None] * jnp.stack([c, a], -1) / (a * c - b * b)[:, None])
    return build_pairs(
        inputs["means2d"],
        inputs["conics"],
        inputs["opacities"],
        extents,
        inputs["depths"],
        jnp.ones(a.shape[0], bool),
        grid=(-(-height // tile_size), -(-width // tile_size)),
        tile_size=tile_size,
        capacity=capacity,
    )


@functools.partial(jax.jit, static_argnames=("width", "height"))
def composite(inputs, width, height):
    pairs = pairs_of(inputs, width, height, tile_size=16)
    return rasterize(
        *(inputs[k] for k in ARGUMENTS),
        pairs.pair_gaussian,
        pairs.tile_offsets,
        width=width,
        height=height,
        tile_size=16,
        backend="xla",
    )


@pytest.mark.parametrize("name", ["composite_f64", "composite_f64_saturated"])
@pytest.mark.parametrize(
    "tile_size, chunk, lanes",
    [(16, 16, 8), (8, 5, 3), pytest.param(16, 64, 1, marks=pytest.mark.slow)],
)
def test_image_and_gradients_match_float64_autograd(name, tile_size, chunk, lanes):
    inputs, expected = composite_fixture(name)
    height, width = expected["image"].shape[:2]
    probe = jnp.zeros_like(inputs["means2d"])
    cotangents = tuple(jnp.asarray(expected[k], jnp.float32) for k in ("ct_image", "ct_alpha"))

    @jax.jit
    def run(inputs):
        pairs = pairs_of(inputs, width, height, tile_size)

        def draw(*arguments):
            return rasterize(
                *arguments[:5], pairs.pair_gaussian, pairs.tile_offsets, width=width,
                height=height, tile_size=tile_size, absgrad_probe=arguments[5], chunk=chunk,
                lanes=lanes, backend="xla",
            )  # fmt: skip

        outputs, vjp = jax.vjp(draw, *(inputs[k] for k in ARGUMENTS), probe)
        return outputs, vjp(cotangents)

    (image, alpha), gradients = run(inputs)
    (image_bound, alpha_bound), gradient_bounds = rounding_bounds(run, inputs)
    assert max(image_bound, alpha_bound) < 2e-5, "a bound that tells nothing"
    np.testing.assert_allclose(image, expected["image"], rtol=0, atol=image_bound)
    np.testing.assert_allclose(alpha, expected["alpha"], rtol=0, atol=alpha_bound)
    names = [f"grad_{k}" for k in ARGUMENTS] + ["absgrad_means2d"]
    for key, gradient, bound in zip(names, gradients, gradient_bounds):
        reference = expected[key]
        assert bound < 3e-4 * np.abs(reference).max(), "a bound that tells nothing"
        np.testing.assert_allclose(gradient, reference, rtol=0, atol=bound, err_msg=key)


@pytest.fixture(scope="module")
def random_screen():
    gaussians = screen_gaussians(150, 45, 37, seed=3, elongation=2.5)
    gaussians["colors"] = np.random.default_rng(4).uniform(size=(150, 4))
    gaussians["background"] = np.array([0.2, 0.5, 0.9, 0.0])
    gaussians.pop("extents")
    return {k: jnp.asarray(v, jnp.float32) for k, v in gaussians.items()}


def test_equals_the_dense_compositor_with_four_channels(random_screen):
    weights = jax.random.normal(jax.random.key(0), (37, 45, 4))

    def value(arguments, draw):
        image, alpha = draw({**random_screen, **arguments})
        return jnp.sum(image * weights) + jnp.sum(alpha * weights[..., 0]), (image, alpha)

    arguments = {k: random_screen[k] for k in ARGUMENTS}
    compared = jax.jit(jax.value_and_grad(value, has_aux=True), static_argnums=1)
    (_, ours), our_gradients = compared(arguments, lambda i: composite(i, 45, 37))
    (_, dense), dense_gradients = compared(
        arguments, lambda i: dense_composite(**i, width=45, height=37)
    )
    for found, expected in zip(ours, dense):
        np.testing.assert_allclose(found, expected, atol=2e-6)
    for name in ARGUMENTS:
        scale = np.abs(dense_gradients[name]).max()
        np.testing.assert_allclose(
            our_gradients[name], dense_gradients[name], atol=3e-5 * scale, err_msg=name
        )


def test_gradients_match_finite_differences():
    # Two overlapping Gaussians whose alpha stays above 1/255 in the whole image: smooth there.
    inputs = {
        "means2d": jnp.array([[6.0, 5.0], [9.0, 7.5]]),
        "conics": jnp.array([[0.010, 0.002, 0.012], [0.008, -0.003, 0.01]]),
        "colors": jnp.array([[0.9, 0.2, 0.4], [0.1, 0.8, 0.3]]),
        "opacities": jnp.array([0.7, 0.6]),
        "background": jnp.array([0.3, 0.1, 0.6]),
    }
    depths = jnp.array([1.0, 2.0])
    weights = jax.random.uniform(jax.random.key(1), (12, 14, 3))

    @jax.jit
    def value(arguments):
        image, alpha = composite({**arguments, "depths": depths}, 14, 12)
        return jnp.sum(image * weights) + jnp.sum(alpha * alpha)

    gradients = jax.grad(value)(inputs)
    steps = {"means2d": 2e-2, "conics": 1e-4}
    for name in ARGUMENTS:
        step = steps.get(name, 1e-2)
        for index in np.ndindex(inputs[name].shape):
            shifted = [
                value({**inputs, name: inputs[name].at[index].add(sign * step)}) for sign in (1, -1)
            ]
            numeric = float(shifted[0] - shifted[1]) / (2 * step)
            found = float(gradients[name][index])
            assert abs(found - numeric) < 0.02 * abs(numeric) + 0.02, (name, index)


def test_no_pairs_give_the_background():
    inputs = {
        "means2d": jnp.full((2, 2), -500.0),
        "conics": jnp.tile(jnp.array([[1.0, 0.0, 1.0]]), (2, 1)),
        "colors": jnp.ones((2, 3)),
        "opacities": jnp.full(2, 0.5),
        "background": jnp.array([0.1, 0.2, 0.3]),
        "depths": jnp.ones(2),
    }
    image, alpha = composite(inputs, 20, 20)
    np.testing.assert_allclose(image, np.tile([0.1, 0.2, 0.3], (20, 20, 1)), rtol=1e-6)
    np.testing.assert_array_equal(alpha, 0.0)


def test_opaque_stacks_stop_before_the_transmittance_threshold():
    # 0.99 twice would leave T = 1e-4 exactly: the second of equal opaque Gaussians is excluded.
    count = 40
    inputs = {
        "means2d": jnp.full((count, 2), 8.5),
        "conics": jnp.tile(jnp.array([[1e-6, 0.0, 1e-6]]), (count, 1)),
        "colors": jnp.arange(count, dtype=jnp.float32)[:, None] * jnp.ones((1, 3)),
        "opacities": jnp.ones(count),
        "background": jnp.zeros(3),
        "depths": jnp.arange(1, count + 1, dtype=jnp.float32),
    }

    def value(opacities):
        image, alpha = composite({**inputs, "opacities": opacities}, 16, 16)
        return jnp.sum(image), (image, alpha)

    slopes = jax.jit(jax.value_and_grad(value, has_aux=True))
    (_, (_, alpha)), gradient = slopes(inputs["opacities"])
    assert np.all(np.asarray(alpha) <= 1 - 1e-4 + 1e-6) and np.all(np.asarray(alpha) > 0.98)
    assert np.isfinite(gradient).all() and np.all(np.asarray(gradient[3:]) == 0)


@pytest.mark.parametrize(
    "platform, asked, expected",
    [("cpu", (0, 0), (32, 8)), ("gpu", (0, 0), (500, 16)), ("tpu", (0, 0), (256, 8)),
     ("gpu", (7, 3), (7, 3)), ("cpu", (900, 0), (500, 8))],
)  # fmt: skip
def test_the_loop_has_the_shape_asked_for_or_that_of_the_ambient_mesh(platform, asked, expected):
    with jax.sharding.use_abstract_mesh(mesh_on(platform)):
        assert resolve_loop_shape(*asked, tiles=500) == expected


@pytest.mark.parametrize("platform, side", [("cpu", 8), ("gpu", 16), ("tpu", 16)])
def test_tiles_have_the_side_asked_for_or_that_of_the_ambient_mesh(platform, side):
    with jax.sharding.use_abstract_mesh(mesh_on(platform)):
        assert resolve_tile_size(0) == side
        assert resolve_tile_size(12) == 12


def mesh_on(platform):
    """A mesh of one device of a platform that need not be attached."""
    device = AbstractDevice(device_kind=platform, num_cores=None, platform=platform)
    return AbstractMesh((1,), ("data",), (AxisType.Auto,), abstract_device=device)


@pytest.mark.parametrize("lanes", [1, 3, 8, 20])
def test_every_tile_is_dealt_once_and_lanes_go_from_busy_to_idle(lanes):
    counts = np.random.default_rng(0).integers(0, 50, 17)
    offsets = jnp.asarray(np.concatenate([[0], np.cumsum(counts)]), jnp.int32)
    table = np.asarray(deal_tiles(offsets, lanes))
    assert sorted(table[table < 17]) == list(range(17))
    padded = np.append(counts, 0)[table]
    assert np.all(np.diff(padded, axis=1) <= 0)
