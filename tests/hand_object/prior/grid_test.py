"""The hand-normalized frame and the grid: which way is up, and what the values are."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.hands.chirality import palm_direction, rest_joints
from hand_object.hands.sources import EMBEDDED, load_hand
from hand_object.prior.grid import (
    FULL_GRID,
    MINI_GRID,
    grid_points,
    hand_frame,
    hand_grid,
    object_grid,
    to_normalized,
    to_world,
    truncated,
)
from hand_object.render.rigid import rotation_matrix

SMALL = replace(MINI_GRID, object_size=8, hand_size=8, limit=1.5)


def test_first_axis_is_x_second_y_third_z():
    """An object far along x, a little along y, none along z: three different profiles."""
    center = np.array([0.9, -0.4, 0.1])
    points = grid_points(SMALL.object_size, SMALL.limit)
    distances = np.linalg.norm(points.reshape(-1, 3) - center, axis=-1) - 0.2
    grid = np.asarray(object_grid(jnp.asarray(distances, jnp.float32), SMALL))[..., 0]
    line = np.linspace(-1.5, 1.5, 8)
    nearest = tuple(int(np.argmin(np.abs(line - value))) for value in center)
    assert nearest == (6, 3, 4)
    assert np.unravel_index(grid.argmin(), grid.shape) == nearest


def test_both_ends_of_the_cube_are_sampled():
    points = grid_points(5, 1.5)
    np.testing.assert_array_equal(points[0, 0, 0], [-1.5, -1.5, -1.5])
    np.testing.assert_array_equal(points[4, 0, 2], [1.5, -1.5, 0.0])


@pytest.mark.parametrize("model", EMBEDDED)
@pytest.mark.parametrize("side", ["right", "left"])
def test_palm_is_below_fingers_point_back_and_thumb_is_ahead(model, side):
    hand = load_hand(model, side)
    joints = jnp.asarray(rest_joints(hand))
    found = np.asarray(to_normalized(joints, joints[0], jnp.eye(3), hand_frame(hand)))
    np.testing.assert_allclose(found[5], [0, 0.4, 0], atol=1e-6)  # 8 cm above the origin
    assert found[9, 0] < found[0, 0] and found[5, 2] > found[17, 2] and found[4, 2] > found[0, 2]
    palm = palm_direction(np.asarray(joints), side)
    turned = hand_frame(hand).axes @ palm
    assert turned[1] < -0.95


def test_left_hand_is_mirrored_into_the_right_one():
    right, left = (load_hand("webxr", side) for side in ("right", "left"))
    found = []
    for hand in (right, left):
        joints = jnp.asarray(rest_joints(hand))
        found.append(np.asarray(to_normalized(joints, joints[0], jnp.eye(3), hand_frame(hand))))
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_frame_follows_the_wrist_and_has_an_inverse(new_key):
    """A hand has the same coordinates however it is held."""
    hand = load_hand("parametric")
    rotation = rotation_matrix(0.8 * jax.random.normal(new_key(), (1, 3)))[0]
    rest, frame = jnp.asarray(rest_joints(hand)), hand_frame(hand)
    wrist = jnp.array([0.3, -0.2, 0.9])
    held = (rest - rest[:1]) @ rotation.T + wrist[None]
    found = to_normalized(held, wrist, rotation, frame)
    wanted = to_normalized(rest, rest[0], jnp.eye(3), frame)
    # Meters of about 1 are rounded by 6e-8; in units five times that, a few times over.
    np.testing.assert_allclose(found, wanted, atol=5e-6)
    np.testing.assert_allclose(to_world(found, wrist, rotation, frame), held, atol=1e-6)


def test_hand_values_are_cut_off_squared_distances(new_key):
    joints = np.asarray(jax.random.uniform(new_key(), (21, 3), minval=-1, maxval=1))
    grid = replace(SMALL, joint_reach=0.5, joint_scale=2.0)
    found = np.asarray(hand_grid(jnp.asarray(joints), grid))
    assert found.shape == (8, 8, 8, 20)
    line = np.linspace(-1.5, 1.5, 8)
    for i, j, k in [(0, 0, 0), (3, 4, 6), (7, 1, 2)]:
        point = np.array([line[i], line[j], line[k]])
        squares = np.sum((joints[1:].astype(float) - point) ** 2, axis=-1)
        np.testing.assert_allclose(found[i, j, k], np.minimum(squares, 0.5) / 2, rtol=1e-5)


@pytest.mark.parametrize("grid", [FULL_GRID, MINI_GRID])
def test_cut_distances_keep_their_order_and_a_gradient(grid):
    """A gradient near the surface with either; everywhere with the leaky one."""
    # To the corner of the cube, 13 truncations away.
    distances = jnp.linspace(-0.5, 2.6, 200)
    values = truncated(distances, grid)
    assert np.all(np.diff(np.asarray(values)) >= 0)
    near = np.abs(np.asarray(distances)) < 2.0 * grid.truncation
    assert np.all(np.diff(np.asarray(values))[near[1:] & near[:-1]] > 0)
    np.testing.assert_allclose(truncated(jnp.float32(0.0), grid), 0.0)


def test_leaky_cut_is_exact_inside_and_leaks_outside():
    values = truncated(jnp.array([-0.4, -0.2, 0.1, 0.2, 0.4]), FULL_GRID)
    np.testing.assert_allclose(values, [-1.01, -1.0, 0.5, 1.0, 1.01], rtol=1e-6)
    slope = jax.grad(lambda d: truncated(d, FULL_GRID))(1.4)
    np.testing.assert_allclose(slope, 0.01 / 0.2, rtol=1e-5)


@pytest.mark.parametrize("grid", [FULL_GRID, MINI_GRID])
def test_slope_at_the_surface_is_that_of_the_distance(grid):
    slope = jax.grad(lambda d: truncated(d, grid))(0.0)
    np.testing.assert_allclose(slope, 1 / grid.truncation, rtol=1e-6)
