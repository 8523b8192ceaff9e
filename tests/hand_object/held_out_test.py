"""Held-out frames follow their neighbors, and nothing is learned from them."""

import numpy as np
from scipy.spatial.transform import Rotation

from hand_object.data.frames import held_out
from hand_object.held_out import followed_tables, neighbor_weights


def test_the_last_of_each_eight_frames_is_held_out():
    np.testing.assert_array_equal(np.flatnonzero(held_out(20, 8)), [7, 15])


def test_weights_are_of_trained_neighbors_only():
    weights = neighbor_weights(np.array([False, True, False, False, True]))
    np.testing.assert_array_equal(weights[1], [0.5, 0, 0.5, 0, 0])
    np.testing.assert_array_equal(weights[4], [0, 0, 0, 1, 0])  # none after it
    np.testing.assert_array_equal(weights[[0, 2, 3]], np.eye(5)[[0, 2, 3]])


def test_a_drift_of_all_trained_frames_moves_held_out_ones_alike():
    """Also where axis-angles of neighbors are far apart although the rotations are not."""
    angles = np.linspace(2.8, 3.5, 6)
    first = Rotation.from_rotvec(angles[:, None] * [0, 1, 0]).as_rotvec().astype(np.float32)
    assert np.abs(np.diff(first, axis=0)).max() > 5  # it jumps from +pi to -pi
    drift = Rotation.from_rotvec([0.1, 0.05, -0.02])
    held = np.array([False, False, True, False, True, False])
    moved = np.where(held[:, None], first, (drift * Rotation.from_rotvec(first)).as_rotvec())
    start = {"object": {"rotation": first, "translation": np.zeros((6, 3), np.float32)}}
    now = {
        "object": {"rotation": moved, "translation": np.where(held, 0, 0.2)[:, None] * [1, 0, 0]}
    }
    found = followed_tables(now, start, neighbor_weights(held))["object"]
    wanted = drift * Rotation.from_rotvec(first)
    error = (Rotation.from_rotvec(found["rotation"]).inv() * wanted).magnitude()
    assert error.max() < 1e-5
    np.testing.assert_allclose(found["translation"], np.tile([0.2, 0, 0], (6, 1)), atol=1e-6)
