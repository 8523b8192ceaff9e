"""Pose tables: rows of the frames asked for, gradients to those only, bad tables refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.render.pose_tables import (
    finger_pose,
    hand_table,
    object_placement,
    object_table,
    rows,
)
from training.errors import InputError

FRAMES = np.array([3, 1])


def test_an_object_is_placed_by_its_rows_and_only_they_learn():
    random = np.random.default_rng(0)
    table = object_table(random.normal(size=(5, 3)), random.normal(size=(5, 3)), 0.3)
    fixed = (jnp.float32(2.0), jnp.zeros(3), jnp.float32(0.5))

    def total(table):
        place = object_placement(table, jnp.asarray(FRAMES), *fixed)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in place.similarity), place

    slopes, place = jax.grad(total, has_aux=True)(table)
    np.testing.assert_array_equal(place.frame, FRAMES)
    np.testing.assert_allclose(place.similarity.scale, np.full(2, 2.0 * 0.3 * 0.5), rtol=1e-6)
    np.testing.assert_allclose(
        place.similarity.translation, 2 * table["translation"][FRAMES], rtol=1e-6
    )
    for name in ("rotation", "translation"):
        moved = np.any(slopes[name] != 0, axis=-1)
        np.testing.assert_array_equal(moved, [False, True, False, True, False])
    assert slopes["log_scale"] != 0


def test_hands_share_their_shape_and_give_their_fingers():
    pose = np.arange(4 * 3 * 3, dtype=np.float32).reshape(4, 3, 3)
    table = hand_table(pose, np.zeros((4, 3)), np.ones(10))
    own = rows(table, jnp.asarray(FRAMES))
    np.testing.assert_array_equal(own["pose"], pose[FRAMES])
    assert own["shape"].shape == (10,)
    np.testing.assert_array_equal(finger_pose(table, jnp.asarray([1])), pose[1:2, 1:].reshape(1, 6))


def test_frames_that_are_not_finite_are_named():
    moves = np.zeros((6, 3))
    moves[[2, 4], 1] = np.nan
    with pytest.raises(InputError, match=r"translations are not finite in frame 2 \(2 frames"):
        object_table(np.zeros((6, 3)), moves, 1.0)


def test_tables_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"shape \(6, 4\)"):
        object_table(np.zeros((6, 4)), np.zeros((6, 3)), 1.0)
    with pytest.raises(InputError, match="joints x 3"):
        hand_table(np.zeros((6, 48)), np.zeros((6, 3)), np.zeros(10))
    with pytest.raises(InputError, match="above 0"):
        object_table(np.zeros((6, 3)), np.zeros((6, 3)), 0.0)
