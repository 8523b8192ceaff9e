"""Recordings with a moving camera: the object is found by depth, hands by poses or by meshes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from hand_object.config import SequenceConfig
from hand_object.data.rasterizer import draw
from hand_object.data.sequence import BACKGROUND, LEFT, OBJECT, RIGHT
from hand_object.data.sequence_access import check_folder, read_sequence
from hand_object.data.solids import solid
from hand_object.synthetic import make_sequence
from tests.hand_object.data import awkward as a
from training.errors import ConfigError, InputError

pytestmark = pytest.mark.usefixtures("quick_compilation")
LEVELS = {"box": 50, "ball": 20}
AWAY = np.array([3.0, -2.0, 1.0])  # meters: the world of a headset begins anywhere
BALL_AT = np.array([0.12, 0.1, -0.05])  # meters, beside the box


def camera_path(count: int) -> np.ndarray:
    """[T, 4, 4] world -> camera of a head that moves by some centimeters and degrees."""
    cameras = np.tile(np.eye(4), (count, 1, 1))
    for frame in range(count):
        turn = Rotation.from_euler("y", 0.05 * frame).as_matrix()
        cameras[frame, :3, :3] = turn @ np.diag([1.0, -1, -1])
        cameras[frame, :3, 3] = [0.01 * frame, 0, 0.45] - cameras[frame, :3, :3] @ AWAY
    return cameras


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """Two objects and a right hand at the first of them, seen by one camera."""
    made, root = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("recording")
    truth, folder = make_sequence(a.SCENE, made), root / "left"
    for kind in ("image", "mask", "depth"):
        (folder / kind).mkdir(parents=True)
    cameras, (ball, ball_faces) = camera_path(a.SCENE.frames), solid("ball")
    ball = 0.4 * ball
    poses = np.tile(np.eye(4), (a.SCENE.frames, 2, 1, 1))
    poses[:, 1] = truth["object_to_world"]
    poses[:, 1, :3, 3] += AWAY
    poses[:, 0, :3, 3] = AWAY + BALL_AT
    hands = truth["hand_vertices"] + AWAY
    for frame, camera in enumerate(cameras):
        box = truth["object_vertices"] @ poses[frame, 1, :3, :3].T + poses[frame, 1, :3, 3]
        meshes = [
            (box, truth["object_faces"]),
            (ball + AWAY + BALL_AT, ball_faces),
            (hands[frame], truth["hand_faces"]),
        ]
        seen = draw(meshes, truth["K"], camera, a.SCENE.size)
        levels = np.array([0, LEVELS["box"], LEVELS["ball"], 150], np.uint8)
        depth = np.where(np.isfinite(seen.depth), seen.depth * 1e4, 0).astype(np.uint16)
        Image.fromarray(levels[seen.mesh + 1]).save(folder / f"mask/{frame:04d}.png")
        Image.fromarray(depth).save(folder / f"depth/{frame:04d}.png")
        shutil.copy(made / f"build/image/{frame:04d}.png", folder / f"image/{frame:04d}.png")
    np.savez(folder / "cameras.npz", K=truth["K"], world_to_camera=cameras)
    np.savez(
        root / "ground_truth.npz",
        object_names=np.array(["ball", "box"]),
        object_to_world=poses,
        right_vertices=hands.astype(np.float32),
        right_pose_axis_angle=truth["hand_pose_axis_angle"],
        right_trans=truth["hand_trans"] + AWAY.astype(np.float32),
    )
    return folder


def test_the_object_at_the_hand_is_taken_and_all_projects_into_its_mask(recording):
    config = SequenceConfig(str(recording), hand="parametric")
    found = check_folder(recording, config)
    assert found.sequence.name.endswith("_box")
    assert {f.name for f in found.findings if f.level != "green"} == {"motion of the camera"}
    assert set(np.unique(found.sequence.mask(0))) == {BACKGROUND, OBJECT, RIGHT}
    thing = found.sequence.object
    assert thing is not None
    # The box is 14 cm long; depth shows not all of it, and pixels are 6 mm wide.
    assert 0.055 < thing.radius / 1.2 < 0.075
    away = np.linalg.norm(found.sequence.camera_centers(), axis=1) * found.sequence.scene_scale
    assert away.min() > 1.5 and away.max() < 2.5


def test_another_object_is_taken_by_its_name(recording):
    ball = read_sequence(recording, "ball")
    mask = ball.mask(0)
    levels = np.asarray(Image.open(recording / "mask/0000.png"))
    np.testing.assert_array_equal(mask == OBJECT, levels == LEVELS["ball"])
    np.testing.assert_array_equal(mask == RIGHT, levels == 150)
    with pytest.raises(ConfigError, match=r"no object 'mug' .* name one of ball, box"):
        read_sequence(recording, "mug")
    with pytest.raises(ConfigError, match=r"several cameras; .*: left"):
        read_sequence(recording.parent)


def test_hands_of_meshes_alone_get_the_poses_of_their_model(recording, tmp_path):
    shutil.copytree(recording.parent, tmp_path / "copy")
    path = tmp_path / "copy/ground_truth.npz"
    with np.load(path) as file:
        truth = dict(file)
    for key in ("right_pose_axis_angle", "right_trans"):
        del truth[key]
    np.savez(path, **truth)
    folder = path.parent / "left"
    found = check_folder(folder, SequenceConfig(str(folder), hand="parametric"))
    named = {finding.name: finding for finding in found.findings}
    assert named["registration of the right hand"].level == "green"
    posed = read_sequence(recording).hands["right"]
    np.testing.assert_allclose(
        found.sequence.hands["right"].translation, posed.translation, atol=1e-4
    )
    assert named["projection of the right hand"].level == "green"


def test_faults_are_named(recording, tmp_path):
    shutil.copytree(recording.parent, tmp_path / "copy")
    folder = tmp_path / "copy/left"
    (folder / "image/0003.png").unlink()
    with pytest.raises(
        InputError, match=r"cameras\.npz: world_to_camera has 6 frames .* 5 pictures"
    ):
        read_sequence(folder)
    np.savez(folder.parent / "ground_truth.npz", object_names=np.array(["box"]))
    with pytest.raises(InputError, match=r"ground_truth\.npz lacks object_to_world"):
        read_sequence(folder)
    shutil.rmtree(folder / "image")
    with pytest.raises(InputError, match="there are no frames"):
        read_sequence(folder)


def test_a_recorded_pair_of_hands_is_sound(data_root):
    root = data_root / "hand_object"
    if not (root / "ego_two_view").is_dir():
        pytest.skip(f"no ego_two_view in {root}")
    folder = root / "ego_two_view/right"
    config = SequenceConfig(str(folder), hand=str(root / "hand_models/umetrack_P0002_{side}.npz"))
    found = check_folder(folder, config)
    assert found.sequence.name == "ego_two_view_right_mouse"
    assert {f.name for f in found.findings if f.level != "green"} == {"motion of the camera"}
    assert {LEFT, RIGHT, OBJECT} <= set(np.unique(found.sequence.mask(7)))
