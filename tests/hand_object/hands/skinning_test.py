"""Posing: recorded hands are reproduced, sums equal a plain loop, gradients are finite."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.hands.model import mirrored, mirrored_pose
from hand_object.hands.skinning import pose_hand, skin
from hand_object.hands.sources import load_hand

pose_compiled = jax.jit(pose_hand)


@pytest.fixture(scope="module")
def hand():
    return load_hand("parametric", "right")


def gesture(seed: int = 0, joints: int = 16, size: float = 0.4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, joints, 3), scale=size).astype(np.float32)


def turn(axis_angle: np.ndarray) -> np.ndarray:
    """Rodrigues in float64, by the series of the matrix exponential."""
    x, y, z = axis_angle.astype(np.float64)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    total, term = np.eye(3), np.eye(3)
    for k in range(1, 40):
        term = term @ cross / k
        total = total + term
    return total


def posed_by_loop(model, pose, translation, shape):
    """Vertices [V, 3] in float64, one vertex and one joint after the other."""
    real = {
        key: np.asarray(getattr(model, key), np.float64)
        for key in ("template", "joints", "weights", "shape_dirs", "joint_dirs")
    }
    template, joints = real["template"].copy(), real["joints"].copy()
    for number, share in enumerate(shape):
        template += share * real["shape_dirs"][number]
        joints += share * real["joint_dirs"][number]
    placed = []
    for joint, parent in enumerate(model.parents):
        own = np.eye(4)
        own[:3, :3] = turn(pose[joint])
        own[:3, 3] = joints[joint] - own[:3, :3] @ joints[joint]
        placed.append(own if parent < 0 else placed[parent] @ own)
    posed = np.zeros_like(template)
    for row, point in enumerate(template):
        for joint in np.flatnonzero(real["weights"][row]):
            moved = placed[joint][:3, :3] @ point + placed[joint][:3, 3]
            posed[row] += real["weights"][row, joint] * moved
    return posed + translation


def test_vertices_equal_a_plain_loop_in_float64(hand):
    pose, shift = gesture(), np.array([0.1, -0.2, 0.5], np.float32)
    shape = np.linspace(-1, 1, hand.shape_size).astype(np.float32)
    found = pose_compiled(hand, pose, shift[None], shape).vertices[0]
    wanted = posed_by_loop(hand, pose[0], shift, shape)
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_rest_pose_is_the_template(hand):
    posed = pose_compiled(hand, jnp.zeros((1, 16, 3)), jnp.zeros((1, 3)), None)
    np.testing.assert_allclose(posed.vertices[0], hand.template, atol=1e-7)
    np.testing.assert_allclose(posed.joints[0, 0], hand.joints[0], atol=1e-7)


def test_gradients_are_finite_where_no_joint_turns(hand):
    def spread(pose, shift, shape):
        posed = pose_hand(hand, pose, shift, shape)
        return jnp.sum(jnp.square(posed.vertices)) + jnp.sum(posed.joints)

    inputs = jnp.zeros((1, 16, 3)), jnp.zeros((1, 3)), jnp.zeros(hand.shape_size)
    gradients = jax.jit(jax.grad(spread, argnums=(0, 1, 2)))(*inputs)
    for gradient in gradients:
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0


def test_the_other_hand_is_the_mirror_image_in_every_pose(hand):
    pose = gesture(3)
    right = pose_compiled(hand, pose, jnp.zeros((1, 3)), None)
    left = pose_compiled(mirrored(hand), mirrored_pose(pose), jnp.zeros((1, 3)), None)
    flip = np.array([-1, 1, 1])
    np.testing.assert_allclose(np.asarray(left.vertices) * flip, right.vertices, atol=1e-6)
    np.testing.assert_allclose(np.asarray(left.joints) * flip, right.joints, atol=1e-6)


def test_joints_are_in_the_order_of_the_field(hand):
    """Wrist, then thumb, index, middle, ring, pinky: only what a finger moves, moves."""
    rest = pose_compiled(hand, jnp.zeros((1, 16, 3)), jnp.zeros((1, 3)), None).joints[0]
    for finger, name in enumerate(("thumb", "index", "middle", "ring", "pinky")):
        pose = np.zeros((1, 16, 3), np.float32)
        pose[0, hand.joint_names.index(f"{name}2")] = [0, 0.5, 0.5]
        joints = pose_compiled(hand, pose, jnp.zeros((1, 3)), None).joints[0]
        moved = np.flatnonzero(np.abs(joints - rest).max(axis=1) > 1e-4)
        assert list(moved) == [3 + 4 * finger, 4 + 4 * finger], name


def test_a_shape_number_moves_joints_with_the_skin(hand):
    """A tip stays within the finger: it is a vertex of the skin whatever the shape."""
    shape = np.full(hand.shape_size, 0.5, np.float32)
    posed = pose_compiled(hand, gesture(5), jnp.zeros((1, 3)), shape)
    tips = np.asarray(posed.joints[0])[4::4]
    distance = np.linalg.norm(np.asarray(posed.vertices[0])[None] - tips[:, None], axis=-1)
    assert distance.min(axis=1).max() < 1e-6


@pytest.fixture(scope="module")
def recorded(data_root):
    folder = data_root / "hand_object"
    if not (folder / "hold_like_mouse").is_dir():
        pytest.skip(f"no hold_like_mouse in {folder}")
    with np.load(folder / "hold_like_mouse/ground_truth.npz") as file:
        truth = dict(file)
    model = folder / "hand_models/umetrack_P0002_right.npz"
    return load_hand(str(model)), truth, model


def test_recorded_poses_give_the_recorded_vertices(recorded):
    hand, truth, _ = recorded
    posed = pose_compiled(hand, truth["hand_pose_axis_angle"], truth["hand_trans"], None)
    np.testing.assert_allclose(posed.vertices, truth["hand_vertices"], atol=1e-6)


def test_recorded_poses_give_the_recorded_landmarks(recorded):
    hand, truth, path = recorded
    posed = pose_compiled(hand, truth["hand_pose_axis_angle"], truth["hand_trans"], None)
    with np.load(path) as file:
        points, weights = file["landmarks"], file["landmark_weights"]
    found = skin(jnp.asarray(points)[None], jnp.asarray(weights), posed.transforms)
    np.testing.assert_allclose(found, truth["hand_landmarks"], atol=1e-6)
    np.testing.assert_allclose(posed.joints[:, 4::4], truth["hand_landmarks"][:, :5], atol=1e-6)


def test_recorded_landmarks_lie_at_the_joints_of_the_same_name(recorded):
    """umetrack lists tips, wrist, two of the thumb, three of each finger, palm."""
    hand, truth, _ = recorded
    posed = pose_compiled(hand, truth["hand_pose_axis_angle"], truth["hand_trans"], None)
    knuckles = np.asarray(posed.joints)[:, [5, 9, 13, 17]]
    found = np.linalg.norm(knuckles - truth["hand_landmarks"][:, [8, 11, 14, 17]], axis=-1)
    assert found.max() < 0.02
