"""nerfstudio and Blender files: axes, intrinsics, masks, points, lists, and damage."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from splats.data import load_scene, read_capture
from splats.formats.ply_container import write_ply
from splats.synthetic import SyntheticConfig, synthetic_cameras
from training.errors import InputError


def _opengl(world_to_camera: np.ndarray) -> list:
    return (np.linalg.inv(world_to_camera) @ np.diag([1.0, -1, -1, 1])).tolist()


def _content(poses: np.ndarray) -> dict:
    frames = [
        {"file_path": f"./images/{i}.png", "transform_matrix": _opengl(pose)}
        for i, pose in enumerate(poses)
    ]
    return {"fl_x": 30.0, "fl_y": 31.0, "cx": 12.5, "cy": 9.5, "w": 24, "h": 18, "frames": frames}


@pytest.fixture
def poses() -> np.ndarray:
    return synthetic_cameras(SyntheticConfig(views=4))[0]


def _write(folder, content: dict, images: bool = True) -> None:
    (folder / "images").mkdir(exist_ok=True)
    for index in range(len(content["frames"]) if images else 0):
        Image.new("RGB", (24, 18), (index, 9, 9)).save(folder / "images" / f"{index}.png")
    (folder / "transforms.json").write_text(json.dumps(content))


def test_opengl_axes_become_ours(tmp_path, poses):
    _write(tmp_path, _content(poses))
    capture = read_capture(tmp_path)
    np.testing.assert_allclose([v.world_to_camera for v in capture.views], poses, atol=1e-9)
    assert capture.views[0].camera is not None
    assert capture.views[0].camera.pinhole == (30, 31, 12.5, 9.5)


def test_applied_transforms_are_undone_for_cameras_and_points(tmp_path, poses):
    applied = np.eye(4)
    applied[:3, :3] = Rotation.random(random_state=1).as_matrix()
    applied[:3, 3] = [1, 2, 3]
    points = np.random.default_rng(0).normal(size=(7, 3))
    moved = poses @ np.linalg.inv(applied)
    vertices = np.zeros(
        7,
        [("x", "<f8"), ("y", "<f8"), ("z", "<f8"), ("red", "u1"), ("green", "u1"), ("blue", "u1")],
    )
    for axis, column in zip("xyz", (points @ applied[:3, :3].T + applied[:3, 3]).T):
        vertices[axis] = column
    vertices["red"] = 200
    write_ply(tmp_path / "points.ply", {"vertex": vertices})
    extra = {"applied_transform": applied[:3].tolist(), "ply_file_path": "points.ply"}
    _write(tmp_path, _content(moved) | extra)
    capture = read_capture(tmp_path)
    np.testing.assert_allclose([v.world_to_camera for v in capture.views], poses, atol=1e-9)
    np.testing.assert_allclose(capture.points, points, atol=1e-9)
    assert (capture.colors == [200, 0, 0]).all()


def test_text_point_clouds_are_read(tmp_path, poses):
    header = "ply\nformat ascii 1.0\nelement vertex 2\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    (tmp_path / "p.ply").write_text(header + "1 2 3\n4 5 6\n")
    _write(tmp_path, _content(poses) | {"ply_file_path": "p.ply"})
    capture = read_capture(tmp_path)
    assert capture.points.tolist() == [[1, 2, 3], [4, 5, 6]] and (capture.colors == 128).all()
    (tmp_path / "p.ply").write_text(header + "1 2 3\n")
    with pytest.raises(InputError, match="cut off"):
        read_capture(tmp_path)


def test_intrinsics_of_a_frame_override_the_global_ones(tmp_path, poses):
    content = _content(poses)
    content["frames"][1] |= {"fl_x": 60.0, "k1": 0.1, "camera_model": "OPENCV"}
    content["frames"][2] |= {"k1": 0.1, "k4": 0.01, "camera_model": "OPENCV_FISHEYE"}
    _write(tmp_path, content)
    cameras = [view.camera for view in read_capture(tmp_path).views]
    assert [camera.model for camera in cameras if camera] == [
        "PINHOLE",
        "OPENCV",
        "OPENCV_FISHEYE",
        "PINHOLE",
    ]
    assert cameras[1] is not None and cameras[1].params[0] == 60
    assert cameras[2] is not None and cameras[2].params[4:] == (0.1, 0, 0, 0.01)


def test_field_of_view_replaces_missing_focal_lengths(tmp_path, poses):
    content = _content(poses)
    for key in ("fl_x", "fl_y", "cx", "cy"):
        del content[key]
    _write(tmp_path, content | {"camera_angle_x": np.pi / 2})
    camera = read_capture(tmp_path).views[0].camera
    assert camera is not None
    np.testing.assert_allclose(camera.pinhole, (12, 12, 12, 9))


def test_masks_lists_and_absent_frames(tmp_path, poses):
    content = _content(poses)
    content["frames"][0]["mask_path"] = "mask.png"
    names = [frame["file_path"] for frame in content["frames"]]
    lists = {"train_filenames": names[:2] + names[3:], "val_filenames": [names[2]]}
    _write(tmp_path, content | lists)
    (tmp_path / "images" / "3.png").unlink()
    mask = np.zeros((18, 24), np.uint8)
    mask[:5] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    scene = load_scene(tmp_path)
    assert scene.split.test == ("images/2.png",) and len(scene.split.train) == 2
    assert scene.report.missing == ("images/3.png",)
    assert scene.valid is not None and scene.valid[0].sum() == 5 * 24
    (tmp_path / "mask.png").unlink()
    with pytest.raises(InputError, match="mask"):
        load_scene(tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"fl_x": "wide"}, "fl_x"),
        ({"w": 0}, "size 0"),
        ({"camera_model": "SHINY", "k1": 0.1}, "SHINY"),
        ({"frames": 3}, "no list 'frames'"),
        ({"frames": []}, "lists no image"),
        ({"frames": [{"file_path": "a.png"}]}, "transform_matrix"),
        ({"frames": [{"transform_matrix": np.eye(4).tolist()}]}, "no file_path"),
        (
            {"frames": [{"file_path": "a", "transform_matrix": (2 * np.eye(4)).tolist()}]},
            "rotation",
        ),
        ({"applied_transform": np.zeros((3, 4)).tolist()}, "applied_transform"),
        ({"ply_file_path": "none.ply"}, "none.ply"),
    ],
)
def test_broken_files_are_one_sentence(tmp_path, poses, change, problem):
    _write(tmp_path, _content(poses) | change, images=False)
    with pytest.raises(InputError, match=problem):
        read_capture(tmp_path)


def test_repeated_frames_are_refused(tmp_path, poses):
    content = _content(poses)
    content["frames"].append(content["frames"][0])
    _write(tmp_path, content)
    with pytest.raises(InputError, match="twice"):
        read_capture(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    key=st.sampled_from(["fl_x", "w", "frames", "camera_model", "k1", "applied_transform", "cx"]),
    value=JSON,
)
def test_odd_values_never_crash(tmp_path, poses, key, value):
    _write(tmp_path, _content(poses) | {key: value}, images=False)
    with contextlib.suppress(InputError):
        read_capture(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fl_x": 0.0}, "focal length 0"),
        ({"fl_x": 10**400}, "fl_x"),
        ({"w": 1e308}, "'w'"),
        ({"cx": 1e11}, "principal point"),
        ({"mask_path": 5}, "mask_path"),
        ({"ply_file_path": ["a"]}, "ply_file_path"),
        ({"train_filenames": "images/0.png"}, "train_filenames"),
        ({"test_filenames": [1]}, "test_filenames"),
        ({"camera_model": ["OPENCV"]}, "camera_model"),
        ({"applied_transform": [[10**400, 0, 0, 0]] * 3}, "applied_transform"),
        ({"frames": [{"file_path": "a", "transform_matrix": [[1e300] * 4] * 4}]}, "frame 0"),
    ],
)
def test_keys_of_the_wrong_kind_or_size_are_refused_by_name(tmp_path, poses, change, words):
    _write(tmp_path, _content(poses))
    (tmp_path / "transforms.json").write_text(json.dumps(_content(poses) | change))
    with pytest.raises(InputError, match=words):
        read_capture(tmp_path)


def test_windows_names_and_byte_order_marks_are_read(tmp_path, poses):
    content = _content(poses)
    for frame in content["frames"]:
        frame["file_path"] = frame["file_path"].removeprefix("./").replace("/", "\\")
    _write(tmp_path, content)
    (tmp_path / "transforms.json").write_text(json.dumps(content), encoding="utf-8-sig")
    assert load_scene(tmp_path).names == tuple(f"images/{i}.png" for i in range(4))


def test_an_angle_alone_takes_the_size_of_the_image(tmp_path, poses):
    content = {"camera_angle_x": 0.8, "frames": _content(poses)["frames"]}
    _write(tmp_path, content)
    scene = load_scene(tmp_path)
    focal = 12 / np.tan(0.4)
    np.testing.assert_allclose(
        scene.intrinsics[0], [[focal, 0, 12], [0, focal, 9], [0, 0, 1]], rtol=1e-6
    )


def test_instant_ngp_says_fisheye_with_a_flag(tmp_path, poses):
    _write(tmp_path, _content(poses) | {"is_fisheye": True})
    camera = read_capture(tmp_path).views[0].camera
    assert camera is not None and camera.model == "OPENCV_FISHEYE"


def test_float_colors_of_points_are_shares_of_one(tmp_path, poses):
    fields = [(name, "<f4") for name in ("x", "y", "z", "red", "green", "blue")]
    table = np.array([(0, 0, 0, 1.0, 0.5, np.nan)], fields)
    write_ply(tmp_path / "points.ply", {"vertex": table})
    _write(tmp_path, _content(poses) | {"ply_file_path": "points.ply"})
    np.testing.assert_array_equal(read_capture(tmp_path).colors, [[255, 128, 0]])


def test_masks_may_leave_out_the_name_of_the_image_folder(tmp_path, poses):
    _write(tmp_path, _content(poses))
    (tmp_path / "masks").mkdir()
    mask = Image.new("L", (24, 18), 255)
    mask.putpixel((3, 4), 0)
    mask.save(tmp_path / "masks" / "2.png")
    valid = load_scene(tmp_path).valid
    assert valid is not None and np.argwhere(~valid).tolist() == [[2, 4, 3]]
