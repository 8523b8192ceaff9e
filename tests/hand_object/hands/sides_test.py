"""Left and right: models, joints and poses of the wrong side are found out."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.hands.bones import bone_capsules
from hand_object.hands.chirality import curl, model_faults, rest_joints, side_of_joints
from hand_object.hands.mesh import boundary_loops, close_holes, signed_volume
from hand_object.hands.model import FINGERS, mirrored, mirrored_pose
from hand_object.hands.skinning import pose_hand
from hand_object.hands.sources import EMBEDDED, load_hand
from hand_object.hands.zones import ZONES, contact_zones
from hand_object.render.skinning import capsule_distances
from training.errors import ConfigError, InputError

HANDS = [(name, side) for name in EMBEDDED for side in ("right", "left")]


@pytest.mark.parametrize(("name", "side"), HANDS)
def test_embedded_hands_are_sound_and_closed(name, side):
    hand = load_hand(name, side)
    assert model_faults(hand) == []
    assert not boundary_loops(hand.faces)
    assert 1e-4 < signed_volume(hand.template, hand.faces) < 6e-4  # cubic meters


@pytest.mark.parametrize(("name", "side"), HANDS)
def test_a_hand_with_the_winding_or_the_name_of_the_other_is_found_out(name, side):
    hand = load_hand(name, side)
    inward = replace(hand, faces=hand.faces[:, ::-1])
    assert "look inward" in model_faults(inward)[0]
    other = replace(hand, side="left" if side == "right" else "right")
    assert "other side" in model_faults(other)[0]


def grasp(hand) -> np.ndarray:
    """All finger joints bent by 0.6 rad about the axis across the palm."""
    joints = rest_joints(hand)
    across = joints[5] - joints[17]
    axis = across / np.linalg.norm(across) * (1 if hand.side == "right" else -1)
    pose = np.zeros((1, 16, 3), np.float32)
    pose[0, 1:13] = 0.6 * axis
    return pose


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_mirrored_pose_bends_fingers_over_the_back_of_the_hand(side):
    hand = load_hand("parametric", side)
    pose, shift = grasp(hand), jnp.zeros((1, 3))
    right_way = np.asarray(pose_hand(hand, pose, shift).joints)
    wrong_way = np.asarray(pose_hand(hand, mirrored_pose(pose), shift).joints)
    assert curl(right_way, side)[0] > 0.8
    assert curl(wrong_way, side)[0] < 0
    assert side_of_joints(right_way) == side


def test_sides_of_recorded_hands_are_told(data_root):
    folder = data_root / "hand_object/hand_models"
    if not folder.is_dir():
        pytest.skip(f"no hand models at {folder}")
    for name in ("umetrack_P0002", "umetrack_P0003", "webxr_generic"):
        for side in ("right", "left"):
            assert model_faults(load_hand(str(folder / f"{name}_{side}.npz"), side)) == []
        wrong = load_hand(str(folder / f"{name}_left.npz"), "right")
        assert model_faults(wrong)


def test_mirroring_twice_gives_the_same_hand():
    hand = load_hand("parametric")
    again = mirrored(mirrored(hand))
    assert again.side == "right"
    for key in ("template", "joints", "shape_dirs", "faces"):
        np.testing.assert_array_equal(getattr(again, key), getattr(hand, key))


@pytest.mark.parametrize(("name", "side"), HANDS)
def test_contact_zones_lie_where_their_name_says(name, side):
    hand = load_hand(name, side)
    zones, joints = contact_zones(hand), rest_joints(hand)
    assert tuple(zones) == ZONES
    for finger, tip in enumerate(f"{name}_tip" for name in FINGERS):
        own = hand.template[zones[tip]].mean(axis=0)
        distances = np.linalg.norm(joints[4::4] - own, axis=1)
        assert np.argmin(distances) == finger, tip
        assert len(zones[tip]) >= 8
    palm = hand.template[zones["palm"]]
    back = set(np.flatnonzero(np.argmax(hand.weights, axis=1) == 0)) - set(zones["palm"])
    # The palm lies on the side that thumb and finger tips bend to.
    inner = rest_joints(hand)[[4, 8, 12]].mean(axis=0) - joints[9]
    normal = np.cross(joints[5] - joints[17], joints[9] - joints[0])
    normal *= np.sign(normal @ inner)
    assert (palm @ normal).mean() > (hand.template[list(back)] @ normal).mean()


@pytest.mark.parametrize("name", EMBEDDED)
def test_capsules_follow_the_surface(name):
    hand = load_hand(name)
    capsules = bone_capsules(hand)
    assert len(capsules.joint) == 20
    assert np.all((np.asarray(capsules.radii) > 2e-3) & (np.asarray(capsules.radii) < 0.03))
    distance = np.asarray(capsule_distances(jnp.asarray(hand.template), capsules)).min(axis=1)
    fingers = np.argmax(hand.weights, axis=1) > 0
    assert np.quantile(np.abs(distance[fingers]), 0.9) < 8e-3


def test_unknown_hands_are_refused_with_what_there_is(tmp_path):
    with pytest.raises(ConfigError, match="parametric"):
        load_hand("bear")
    with pytest.raises(ConfigError, match="right or left"):
        load_hand("webxr", "middle")
    with pytest.raises(InputError, match="there is no hand model"):
        load_hand(str(tmp_path / "hand.npz"))


def test_a_hole_is_closed_outward():
    cube = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    sides = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4)]
    faces = np.array([t for a, b, c, d in sides for t in ((a, b, c), (a, c, d))])
    vertices, closed, shares = close_holes(cube, faces)
    assert signed_volume(vertices, closed) == pytest.approx(1.0)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert not boundary_loops(closed)
