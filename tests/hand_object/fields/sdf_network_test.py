"""Every preset starts as a sphere, and its distances, features and normals are those of one net."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.config import PRESETS, preset
from hand_object.fields.layers import kernel_of
from hand_object.fields.sdf_network import init_sdf, sdf_feature_normal, signed_distance
from hand_object.fields.triplane import interpolate

pytestmark = pytest.mark.usefixtures("quick_compilation")
SEEDS = (0, 1)


def random_points(key, count, radius):
    """Uniform in a ball."""
    x = jax.random.normal(key, (count, 3))
    lengths = radius * jax.random.uniform(jax.random.fold_in(key, 1), (count, 1)) ** (1 / 3)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True) * lengths


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_starts_as_a_sphere(name, new_key):
    config = preset(name)
    points = jnp.concatenate(
        [
            jnp.zeros((1, 3)),
            random_points(new_key(), 200, 0.75 * config.sdf.radius),
            2 * config.sdf.radius * random_points(new_key(), 200, 1e9) / 1e9,
        ]
    )
    surface = points[201:] / jnp.linalg.norm(points[201:], axis=-1, keepdims=True)
    points = points.at[201:].set(2 * config.sdf.radius * surface)
    run = jax.jit(lambda params, x: sdf_feature_normal(params, config, x)[::2])
    for seed in SEEDS:
        distance, gradient = run(init_sdf(jax.random.key(seed), config), points)
        assert distance[0] < 0
        assert np.all(distance[201:] > 0)
        assert np.mean(distance[1:201] < 0) > 0.9
        lengths = np.linalg.norm(gradient, axis=-1)
        assert np.mean((lengths[1:] - 1) ** 2) < 0.5


@pytest.mark.parametrize(("name", "count"), [("seed", 263_642), ("hold", 526_810)])
def test_parameters_are_as_many_as_in_the_original(name, count):
    params = jax.eval_shape(lambda key: init_sdf(key, preset(name)), jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    assert count == sum(leaf.size for path, leaf in leaves if path[-1].key != "gain")


@pytest.fixture(scope="module", params=["frequencies", "triplane"])
def field(request):
    """A small field that has moved from its start, in float64."""
    config = small(request.param)
    params = moved(init_sdf(jax.random.key(1), config), jax.random.key(2))
    return config, params


def in_float64(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), tree)


def test_distance_and_normal_agree_with_finite_differences(field, new_key):
    config, params = field
    x = random_points(new_key(), 20, 0.9)
    step = 1e-6
    with jax.enable_x64(True):
        wide, points = in_float64(params), in_float64(x)
        shifts = step * jnp.concatenate([jnp.zeros((1, 3)), jnp.eye(3), -jnp.eye(3)])
        moved_points = (points[None] + shifts[:, None]).reshape(-1, 3)
        distances = jax.jit(lambda p, x: signed_distance(p, config, x))(wide, moved_points)
        distances = distances.reshape(7, 20)
        value, features, gradient = jax.jit(lambda p, x: sdf_feature_normal(p, config, x))(
            wide, points
        )
        assert features.shape == (20, config.sdf.features)
        np.testing.assert_allclose(value, distances[0], rtol=1e-12)
        slopes = (distances[1:4] - distances[4:]) / (2 * step)
        np.testing.assert_allclose(gradient.T, slopes, atol=1e-6)


def test_features_and_normals_reach_every_parameter(field, new_key):
    config, params = field
    x = random_points(new_key(), 64, 0.9)

    @jax.jit
    def gradients(params):
        _, pull_back = jax.vjp(lambda p: _feature_and_normal_sums(p, config, x), params)
        return pull_back((1.0, 0.0))[0], pull_back((0.0, 1.0))[0]

    of_features, of_normals = gradients(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(of_features):
        assert np.any(leaf != 0), path
    for path, leaf in jax.tree_util.tree_leaves_with_path(of_normals):
        last_bias = path[-1].key == "bias" and path[-2].key == str(config.sdf.layers)
        # The bias of the distance moves no normal.
        assert np.any(leaf != 0) or last_bias, path


def _feature_and_normal_sums(params, config, x):
    _, features, gradient = sdf_feature_normal(params, config, x)
    return jnp.sum(jnp.sin(features)), jnp.sum(jnp.square(gradient))


def test_gradient_of_the_eikonal_term_is_right_through_the_shared_pass(field, new_key):
    config, params = field
    x = random_points(new_key(), 16, 0.9)
    direction = moved(jax.tree.map(jnp.zeros_like, params), new_key())
    with jax.enable_x64(True):
        params, direction, points = in_float64(params), in_float64(direction), in_float64(x)

        def eikonal(step):
            there = jax.tree.map(lambda a, b: a + step * b, params, direction)
            gradient = sdf_feature_normal(there, config, points)[2]
            return jnp.mean((jnp.linalg.norm(gradient, axis=-1) - 1) ** 2)

        values_and_slopes = jax.jit(jax.vmap(jax.value_and_grad(eikonal)))
        values, slopes = values_and_slopes(jnp.array([-1e-6, 0.0, 1e-6]))
        np.testing.assert_allclose(slopes[1], (values[2] - values[0]) / 2e-6, rtol=1e-5)


def test_bfloat16_changes_the_products_only(new_key):
    config = dataclasses.replace(small("frequencies"), compute="bfloat16")
    params = init_sdf(new_key(), config)
    x = random_points(new_key(), 64, 0.9)
    wide = signed_distance(params, small("frequencies"), x)
    narrow = signed_distance(params, config, x)
    assert narrow.dtype == jnp.float32
    # 8 bits of mantissa, through 3 layers whose values are of the order of 1.
    np.testing.assert_allclose(narrow, wide, atol=3 * 2**-7)
    assert np.any(narrow != wide)


def test_splines_reproduce_planes_that_are_straight(new_key):
    # Quadratic B-splines reproduce linear functions of their coefficients exactly.
    cells, x = 12, random_points(new_key(), 50, 0.9)
    ramp = jnp.broadcast_to(jnp.arange(cells, dtype=jnp.float32)[:, None, None], (cells, cells, 1))
    planes = jnp.stack([ramp, ramp, ramp])
    expected = (x + 1.1) * (cells - 3) / 2.2 + 1.0
    np.testing.assert_allclose(interpolate(planes, x), expected[:, [0, 0, 1]], rtol=1e-5)


def test_the_slope_of_splines_has_no_steps(new_key):
    planes = jax.random.normal(new_key(), (3, 8, 8, 2))
    # Across a border of cells, halfway between two coefficients of the first axis.
    border = (0.5 + 3 - 1.0) * 2.2 / 5 - 1.1
    line = jnp.stack([jnp.array([border - 1e-4, border + 1e-4]), *jnp.full((2, 2), 0.123)], axis=-1)
    slope = jax.vmap(jax.jacfwd(lambda x: interpolate(planes, x[None])[0]))(line)
    # Curvature times the distance of the two points bounds what the slope may change.
    assert np.abs(slope[0] - slope[1]).max() < 4 * np.abs(planes).max() * (5 / 2.2) ** 2 * 2e-4


def test_weight_normalization_keeps_the_kernel_at_the_start(new_key):
    params = init_sdf(new_key(), preset("smoke"))
    for layer in params["layers"].values():
        np.testing.assert_allclose(kernel_of(layer), layer["direction"], rtol=1e-6, atol=1e-7)


def small(kind):
    config = preset("smoke")
    encoding = dataclasses.replace(config.encoding, kind=kind, frequencies=3, resolution=8)
    skip = 1 if kind == "frequencies" else None
    return dataclasses.replace(
        config, encoding=encoding, sdf=dataclasses.replace(config.sdf, skip=skip)
    )


def moved(params, key):
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten(
        [leaf + 0.05 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys)]
    )
