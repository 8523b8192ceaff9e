"""The background: right for every camera, the one at the center too; the median of free pixels."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.config import BackgroundConfig
from hand_object.fields.background import (
    background_color,
    background_field,
    init_background,
    inverted_sphere_points,
    median_frame,
)
from training.errors import InputError

pytestmark = pytest.mark.usefixtures("quick_compilation")
RADIUS = 6.0


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def rotated_directions(origin, direction, rho):
    """NeRF++ as published: the exit point turned about (origin x exit), in float64."""
    along = -origin @ direction
    middle = origin + along * direction
    exit_point = origin + (along + np.sqrt(RADIUS**2 - middle @ middle)) * direction
    axis = np.cross(origin, exit_point)
    axis /= np.linalg.norm(axis)
    distance = np.linalg.norm(middle)
    angle = np.arcsin(distance / RADIUS) - np.arcsin(distance * rho)
    turned = (
        exit_point * np.cos(angle)
        + np.cross(axis, exit_point) * np.sin(angle)
        + axis * (axis @ exit_point) * (1 - np.cos(angle))
    )
    return unit(turned)


def test_it_agrees_with_the_rotation_where_that_is_defined():
    random = np.random.default_rng(0)
    origins = 3 * random.uniform(-1, 1, (50, 3))
    directions = unit(random.normal(size=(50, 3)))
    rho = random.uniform(0, 1 / RADIUS, (50, 1))
    with jax.enable_x64(True):
        got = inverted_sphere_points(*(jnp.asarray(a) for a in (origins, directions, rho)))
    expected = [rotated_directions(o, d, r[0]) for o, d, r in zip(origins, directions, rho)]
    np.testing.assert_allclose(got[:, 0, :3], expected, atol=1e-9)
    np.testing.assert_array_equal(got[:, 0, 3], rho[:, 0])


def test_a_camera_at_the_center_sees_its_own_directions():
    # All 16,384 rotation axes of the original were 0 / 0 here.
    random = np.random.default_rng(1)
    directions = jnp.asarray(unit(random.normal(size=(64, 3))), jnp.float32)
    rho = jnp.broadcast_to(jnp.linspace(0, 1 / RADIUS, 5), (64, 5))
    origins = jnp.zeros((64, 3))

    def total(origins, directions):
        points = inverted_sphere_points(origins, directions, rho)
        return jnp.sum(points), points

    slopes, points = jax.grad(total, argnums=(0, 1), has_aux=True)(origins, directions)
    expected = np.broadcast_to(np.asarray(directions)[:, None], (64, 5, 3))
    np.testing.assert_allclose(points[..., :3], expected, atol=1e-6)
    assert all(np.all(np.isfinite(slope)) for slope in slopes)


def test_the_ray_that_passes_the_center_and_the_one_that_touches_the_sphere_are_finite():
    origins = jnp.array([[0.0, 0.0, -2.0], [RADIUS, 0.0, -1.0]])
    directions = jnp.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    rho = jnp.full((2, 1), 1 / RADIUS)

    def total(origins):
        return jnp.sum(inverted_sphere_points(origins, directions, rho))

    points = inverted_sphere_points(origins, directions, rho)
    np.testing.assert_allclose(points[:, 0, :3], [[0, 0, 1], [1, 0, 0]], atol=1e-6)
    assert np.all(np.isfinite(jax.grad(total)(origins)))


def test_far_away_only_the_direction_of_the_ray_counts():
    origins = jnp.array([[1.0, -2.0, 3.0]])
    directions = jnp.asarray(unit(np.array([[1.0, 2.0, -0.5]])), jnp.float32)
    points = inverted_sphere_points(origins, directions, jnp.zeros((1, 1)))
    np.testing.assert_allclose(points[0, 0, :3], directions[0], atol=1e-7)


def test_the_field_has_the_published_widths_and_is_finite(new_key):
    config = BackgroundConfig()
    shapes = jax.eval_shape(lambda key: init_background(key, config), new_key())
    assert shapes["density"]["0"]["direction"].shape == (84 + 32, 256)
    assert shapes["color"]["0"]["direction"].shape == (315, 128)
    config = dataclasses.replace(
        config, layers=2, skip=1, width=64, features=8, color_width=16, frequencies=2, frame_code=3
    )
    params = init_background(new_key(), config)
    points = jax.random.normal(new_key(), (20, 4))
    directions = jnp.asarray(unit(np.random.default_rng(2).normal(size=(20, 3))), jnp.float32)
    sigma, rgb = background_field(params, config, points, directions, jnp.ones((20, 3)))
    assert np.all(sigma >= 0)
    assert np.all((rgb >= 0) & (rgb <= 1))


def test_the_last_sample_is_opaque_and_near_ones_hide_it():
    rho = jnp.array([[0.15, 0.1, 0.05]])
    rgb = jnp.eye(3)[None]
    sigma = jnp.array([[0.0, 40.0, 0.0]])
    weight = -np.expm1(-40 * 0.05)
    got = background_color(sigma, rgb, rho)
    np.testing.assert_allclose(got, [[0, weight, 1 - weight]], atol=1e-6)


def test_the_median_is_over_free_pixels_and_fills_the_others_from_their_neighbors():
    frames = np.full((5, 4, 6, 3), 100, np.uint8)
    frames[:, :, 3:] = 200
    hidden = np.zeros((5, 4, 6), bool)
    frames[3:, 1, 1], hidden[3:, 1, 1] = 7, True  # free in three frames
    frames[:, 2, 5], hidden[:, 2, 5] = 9, True  # never free
    expected = np.full((4, 6, 3), 100.0)
    expected[:, 3:] = 200
    got = median_frame(frames, hidden)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, expected)


def test_frames_without_any_background_are_refused():
    with pytest.raises(InputError, match="no background can be found"):
        median_frame(np.zeros((2, 3, 3, 3), np.uint8), np.ones((2, 3, 3), bool))
