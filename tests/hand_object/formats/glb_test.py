"""A file that is read back and posed by its own animation is where skinning puts the hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hand_object.formats.glb import glb_bytes, linear, quaternions, skinning_error, strongest
from hand_object.meshing import Mesh
from tests.hand_object.formats.glb_reader import Scene


@pytest.fixture(scope="module")
def colored(truth):
    """With colors, and without the hand in frame 2."""
    hand = truth.hands["right"]
    tint = np.random.default_rng(0).integers(0, 256, (len(hand.mesh.vertices), 3)).astype(np.uint8)
    hand = dataclasses.replace(
        hand,
        mesh=dataclasses.replace(hand.mesh, colors=tint),
        valid=np.arange(len(truth)) != 2,
    )
    return dataclasses.replace(truth, hands={"right": hand})


@pytest.fixture(scope="module")
def scene(colored) -> Scene:
    return Scene(glb_bytes(colored))


def test_the_hand_is_where_skinning_puts_it(scene, colored):
    hand = colored.hands["right"]
    left_out = skinning_error(hand)
    assert left_out < 5e-4
    for frame in (0, 1, 5):
        error = np.linalg.norm(scene.posed("right_hand", frame) - hand.vertices(frame), axis=1)
        # float32 products along a chain of five joints
        assert error.max() < left_out + 1e-6


def test_the_object_is_where_its_pose_puts_it(scene, colored):
    for frame in (0, 3):
        np.testing.assert_allclose(
            scene.posed("object", frame), colored.object.vertices(frame), atol=1e-6
        )


def test_joints_are_named_and_stand_where_the_model_has_them(scene, colored):
    hand = colored.hands["right"]
    placed = scene.globals(4)
    wrist = placed[scene.by_name["right_wrist"]][:3, 3]
    np.testing.assert_allclose(wrist, hand.joints[4, 0], atol=1e-6)
    names = [f"right_{name}" for name in hand.joint_names]
    assert len(names) == 16 and set(names) < set(scene.by_name)
    own = np.einsum("jab,jb->ja", hand.transforms[4, :, :3, :3], hand.rest_joints)
    own += hand.transforms[4, :, :3, 3]
    found = np.stack([placed[scene.by_name[name]][:3, 3] for name in names])
    np.testing.assert_allclose(found, own, atol=1e-6)


def test_a_hand_that_is_not_there_shrinks_to_nothing(scene):
    assert np.ptp(scene.posed("right_hand", 2), axis=0).max() < 1e-7
    assert np.ptp(scene.posed("right_hand", 1), axis=0).max() > 0.05
    (animation,) = scene.tree["animations"]
    scales = [c for c in animation["channels"] if c["target"]["path"] == "scale"]
    assert [animation["samplers"][c["sampler"]]["interpolation"] for c in scales] == ["STEP"]


def test_times_are_seconds_and_colors_linear(scene, colored):
    (animation,) = scene.tree["animations"]
    times = scene.array(animation["samplers"][0]["input"])[:, 0]
    np.testing.assert_allclose(times, np.arange(6) / 30, atol=1e-6)
    node = scene.tree["nodes"][scene.by_name["right_hand"]]
    attributes = scene.tree["meshes"][node["mesh"]]["primitives"][0]["attributes"]
    np.testing.assert_array_equal(
        scene.array(attributes["COLOR_0"])[:, :3], linear(colored.hands["right"].mesh.colors)
    )
    assert list(linear(np.array([0, 255, 188]))) == [0, 255, 128]


def test_normals_look_outward(scene):
    node = scene.tree["nodes"][scene.by_name["object"]]
    attributes = scene.tree["meshes"][node["mesh"]]["primitives"][0]["attributes"]
    places, normals = scene.array(attributes["POSITION"]), scene.array(attributes["NORMAL"])
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    assert (np.einsum("va,va->v", places - places.mean(axis=0), normals) > 0).all()


def test_turns_go_the_short_way_around():
    angles = np.linspace(0, 4 * np.pi, 25)
    found = quaternions(Rotation.from_rotvec(angles[:, None] * [0, 0, 1]).as_matrix())
    assert (np.einsum("ta,ta->t", found[1:], found[:-1]) > 0.9).all()


def test_weak_joints_are_left_out_and_the_rest_sums_to_one():
    weights = np.array([[0.4, 0.3, 0.15, 0.1, 0.05], [1.0, 0, 0, 0, 0]])
    joints, kept = strongest(weights)
    np.testing.assert_array_equal(joints, [[0, 1, 2, 3], [0, 0, 0, 0]])
    np.testing.assert_allclose(kept[0], np.array([0.4, 0.3, 0.15, 0.1]) / 0.95)
    np.testing.assert_allclose(kept[1], [1, 0, 0, 0])


def test_a_mesh_without_colors_and_hands_is_a_file_too(truth):
    alone = dataclasses.replace(truth, hands={})
    read = Scene(glb_bytes(alone))
    assert "skins" not in read.tree and isinstance(alone.object.mesh, Mesh)
    np.testing.assert_allclose(read.posed("object", 1), alone.object.vertices(1), atol=1e-6)
