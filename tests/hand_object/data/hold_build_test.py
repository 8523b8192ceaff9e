"""HOLD build folders: cameras, poses and masks as they were written; faults are named."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from hand_object.data.hold_build import decompose, read_hold_build
from hand_object.data.sequence import LEFT, OBJECT, RIGHT, UNKNOWN, mask_classes
from hand_object.render.rigid import object_similarity, to_scene
from training.errors import InputError

K = np.array([[60.0, 0, 19.5], [0, 62.0, 14.5], [0, 0, 1]])
OPENGL = np.diag([1.0, -1, -1])


def write(folder, *, frames=3, change=None, center=(0.0, 0, 0), masks=True):
    """A small folder, 40 x 30 pixels, of a world with OpenGL's axes."""
    for name in ("image", "mask"):
        (folder / name).mkdir(parents=True)
    cameras = {}
    for i in range(frames):
        Image.fromarray(np.full((30, 40, 3), 10 * i, np.uint8)).save(folder / f"image/{i:04d}.png")
        levels = np.repeat([[0, 50, 150, 250]], 30, axis=0).repeat(10, axis=1).astype(np.uint8)
        if masks:
            Image.fromarray(levels).save(folder / f"mask/{i:04d}.png")
        world = np.eye(4)
        world[:3] = K @ np.concatenate([OPENGL, [[0.01 * i], [0], [0.4]]], axis=1)
        cameras[f"world_mat_{i}"] = world
        cameras[f"scale_mat_{i}"] = np.diag([0.2, 0.2, 0.2, 1.0])
        cameras[f"scale_mat_{i}"][:3, 3] = center
    normal = np.diag([10.0, 10, 10, 1])
    normal[:3, 3] = [-0.1, -0.2, -0.3]
    data = {
        "seq_name": "small",
        "cameras": cameras,
        "scene_bounding_sphere": 6.0,
        "entities": {
            "left": {
                "hand_poses": np.linspace(0, 1, frames * 48).reshape(frames, 48),
                "hand_trans": np.full((frames, 3), 0.1),
                "mean_shape": np.arange(10.0),
            },
            "object": {
                "obj_scale": 1.5,
                "norm_mat": normal,
                "pts.cano": np.ones((5, 3)),
                "object_poses": np.tile([0.3, 0, 0, 0.1, 0.2, 0.3], (frames, 1)),
            },
        },
    }
    if change is not None:
        change(data)
    np.save(folder / "data.npy", np.array(data, object), allow_pickle=True)
    return folder


def test_cameras_are_the_ones_that_were_written(tmp_path):
    sequence = read_hold_build(write(tmp_path))
    np.testing.assert_allclose(sequence.intrinsics, np.tile(K, (3, 1, 1)), atol=1e-5)
    np.testing.assert_allclose(sequence.world_to_camera[2, :3, :3], OPENGL, atol=1e-7)
    np.testing.assert_allclose(sequence.world_to_camera[2, :3, 3], [0.02, 0, 0.4], atol=1e-7)
    assert (sequence.scene_scale, sequence.sphere) == (pytest.approx(5.0), 6.0)
    np.testing.assert_allclose(sequence.camera_centers()[0], [0, 0, 0.4], atol=1e-7)


def test_a_negated_projection_gives_the_same_camera():
    angle = 0.7
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    projection = K @ np.concatenate([turn, [[0.1], [0.2], [0.9]]], axis=1)
    for sign in (1, -3.0):
        k, camera = decompose(sign * projection)
        np.testing.assert_allclose(k, K, atol=1e-9)
        np.testing.assert_allclose(camera[:3, :3], turn, atol=1e-12)
        np.testing.assert_allclose(camera[:3, 3], [0.1, 0.2, 0.9], atol=1e-12)


def test_the_origin_is_the_center_of_the_sphere(tmp_path):
    """Pixels stay where they are when the world is moved."""
    center = np.array([0.05, -0.02, 0.01])
    plain = read_hold_build(write(tmp_path / "a"))
    moved = read_hold_build(write(tmp_path / "b", center=center))
    for track in ("left",):
        there = moved.hands[track].translation + center
        np.testing.assert_allclose(there, plain.hands[track].translation, atol=1e-7)
    assert moved.object is not None and plain.object is not None
    np.testing.assert_allclose(
        moved.object.translation + center, plain.object.translation, atol=1e-7
    )
    point = np.array([0.1, 0.1, 0.1])
    for sequence, own in ((plain, point), (moved, point - center)):
        camera = sequence.world_to_camera[0]
        np.testing.assert_allclose(
            camera[:3, :3] @ own + camera[:3, 3], [0.1, -0.1, 0.3], atol=1e-6
        )


def test_tables_are_given_by_joint_and_side(tmp_path):
    hand = read_hold_build(write(tmp_path)).hands["left"]
    assert hand.pose.shape == (3, 16, 3)
    np.testing.assert_allclose(hand.pose.reshape(-1), np.linspace(0, 1, 144), atol=1e-6)
    np.testing.assert_array_equal(hand.shape, np.arange(10))
    assert hand.valid.all()


def test_frames_without_a_hand_are_not_valid_and_stay_finite(tmp_path):
    def lose(data):
        data["entities"]["left"]["hand_poses"][1] = np.nan
        data["entities"]["left"]["hand_trans"][1] = np.nan

    hand = read_hold_build(write(tmp_path, change=lose)).hands["left"]
    assert list(hand.valid) == [True, False, True]
    assert np.isfinite(hand.pose).all()


def test_masks_are_classes_and_missing_ones_unknown(tmp_path):
    sequence = read_hold_build(write(tmp_path / "a"))
    assert list(sequence.mask(0)[3, 5::10]) == [0, OBJECT, RIGHT, LEFT]
    assert (read_hold_build(write(tmp_path / "b", masks=False)).mask(0) == UNKNOWN).all()
    np.testing.assert_array_equal(
        mask_classes(np.array([24, 25, 99, 100, 199, 200])), [0, 1, 1, 2, 2, 3]
    )


def test_a_smaller_size_keeps_what_a_pixel_shows(tmp_path):
    sequence = read_hold_build(write(tmp_path)).resized(20)
    assert (sequence.size, sequence.image(0).shape) == ((15, 20), (15, 20, 3))
    assert sequence.mask(0).shape == (15, 20)
    # The corner (-1/2, -1/2) of the picture is the same ray at every size.
    for k in (K, sequence.intrinsics[0]):
        assert (-0.5 - k[0, 2]) / k[0, 0] == pytest.approx(-20 / 60, abs=1e-6)
        assert (-0.5 - k[1, 2]) / k[1, 1] == pytest.approx(-15 / 62, abs=1e-6)


FAULTS = {
    "cameras": lambda data: data.pop("cameras"),
    "hand_trans": lambda data: data["entities"]["left"].pop("hand_trans"),
    "2 cameras but": lambda data: data["cameras"].pop("world_mat_2"),
    "to a line": lambda data: data["cameras"].update(world_mat_1=np.zeros((4, 4))),
    "object_poses": lambda data: data["entities"]["object"].update(object_poses=np.zeros((3, 7))),
    "norm_mat": lambda data: data["entities"]["object"].update(norm_mat=np.zeros((4, 4))),
}


@pytest.mark.parametrize("message", FAULTS)
def test_faults_are_named(tmp_path, message):
    with pytest.raises(InputError, match=message):
        read_hold_build(write(tmp_path, change=FAULTS[message]))


def test_frames_of_other_sizes_are_refused(tmp_path):
    write(tmp_path)
    Image.fromarray(np.zeros((10, 10, 3), np.uint8)).save(tmp_path / "image/0001.png")
    with pytest.raises(InputError, match=r"0001.png is 10 x 10 but the first frame is 40 x 30"):
        read_hold_build(tmp_path).image(1)


def test_the_recorded_grasp_is_read_as_its_ground_truth(data_root):
    folder = data_root / "hand_object/hold_like_mouse"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    sequence = read_hold_build(folder)
    with np.load(folder / "ground_truth.npz") as file:
        truth = dict(file)
    assert len(sequence) == 48
    np.testing.assert_allclose(sequence.intrinsics[0], truth["K"], atol=1e-3)
    np.testing.assert_allclose(sequence.world_to_camera, truth["world_to_camera"], atol=1e-6)
    hand, thing = sequence.hands["right"], sequence.object
    assert (hand.model, hand.pose.shape) == ("umetrack_P0002_right", (48, 17, 3))
    np.testing.assert_allclose(hand.pose, truth["hand_pose_axis_angle"], atol=1e-6)
    assert thing is not None
    pose = object_similarity(
        jnp.asarray(thing.axis_angle),
        jnp.asarray(thing.translation),
        jnp.float32(thing.scale),
        jnp.float32(1.0),
        jnp.asarray(thing.center),
        jnp.float32(thing.radius),
    )
    found = to_scene(pose, jnp.asarray(thing.points)[None])
    vertices = truth["object_vertices"] - 0.0
    wanted = np.einsum("tab,vb->tva", truth["object_to_world"][:, :3, :3], vertices)
    wanted += truth["object_to_world"][:, None, :3, 3]
    for frame in (0, 30):
        for stat in (np.min, np.max):
            np.testing.assert_allclose(
                stat(np.asarray(found[frame]), axis=0), stat(wanted[frame], axis=0), atol=3e-3
            )
    assert set(np.unique(sequence.mask(0))) == {0, OBJECT, RIGHT}
