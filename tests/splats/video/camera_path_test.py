"""Camera paths: geometry of orbits and interpolation, and the JSON file."""

from __future__ import annotations

import json

import numpy as np
import pytest

from splats.data import read_capture
from splats.data.normalization import camera_centers
from splats.video.camera_path import (
    CameraPath,
    interpolate,
    look_at,
    orbit,
    path_of_capture,
    read_path,
    write_path,
)
from training.errors import ConfigError, InputError


def _path(count: int = 5) -> CameraPath:
    return CameraPath(orbit(count), np.tile([30.0, 31, 12, 9], (count, 1)), 24, 18, 12.0)


def test_looking_at_a_point_puts_it_on_the_optical_axis_with_up_upwards():
    pose = look_at((3, 1, 2), (0, 0, 1), (0, 0, 1))
    target = pose @ [0, 0, 1, 1]
    np.testing.assert_allclose(target[:2], 0, atol=1e-12)
    assert np.isclose(target[2], np.linalg.norm([3, 1, 1]))
    above = pose @ [0, 0, 1.5, 1]
    assert above[1] < 0 and abs(above[0]) < 1e-12
    assert np.isclose(np.linalg.det(pose[:3, :3]), 1)
    with pytest.raises(ConfigError, match="up direction"):
        look_at((0, 0, 3), (0, 0, 0), (0, 0, 1))


def test_orbits_keep_radius_height_and_target():
    poses = orbit(12, center=(1, 2, 3), radius=2, elevation=30, up=(0, 1, 0))
    offset = camera_centers(poses) - [1, 2, 3]
    np.testing.assert_allclose(np.linalg.norm(offset, axis=1), 2)
    np.testing.assert_allclose(offset[:, 1], 1)
    np.testing.assert_allclose(poses @ [1, 2, 3, 1], np.tile([0, 0, 2, 1], (12, 1)), atol=1e-12)
    steps = np.linalg.norm(offset - np.roll(offset, 1, axis=0), axis=1)
    np.testing.assert_allclose(steps, steps[0])


def test_interpolation_passes_through_the_ends_at_even_speed():
    views = orbit(16, radius=2)[:7]
    poses = interpolate(views, 61)
    np.testing.assert_allclose(poses[[0, -1]], views[[0, -1]], atol=1e-9)
    np.testing.assert_allclose(poses[::10], views, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(camera_centers(poses), axis=1), 2, rtol=2e-3)
    steps = np.linalg.norm(np.diff(camera_centers(poses), axis=0), axis=1)
    assert steps.max() < 1.05 * steps.min()
    rotations = poses[:, :3, :3]
    product = rotations @ rotations.transpose(0, 2, 1)
    np.testing.assert_allclose(product, np.tile(np.eye(3), (61, 1, 1)), atol=1e-9)


def test_repeated_views_are_merged_and_single_ones_refused():
    views = orbit(4)
    np.testing.assert_allclose(
        interpolate(np.repeat(views, 2, axis=0), 9), interpolate(views, 9), atol=1e-9
    )
    with pytest.raises(ConfigError, match="one place"):
        interpolate(np.repeat(views[:1], 3, axis=0), 9)
    with pytest.raises(ConfigError, match="at least two"):
        interpolate(views[:1], 9)


def test_json_keeps_every_value(tmp_path):
    write_path(tmp_path / "path.json", _path())
    again = read_path(tmp_path / "path.json")
    np.testing.assert_array_equal(again.world_to_camera, _path().world_to_camera)
    np.testing.assert_array_equal(again.intrinsics, _path().intrinsics)
    assert (again.width, again.height, again.frames_per_second, len(again)) == (24, 18, 12.0, 5)


@pytest.mark.parametrize(
    "change",
    [
        {"frames": []},
        {"frames": [{}]},
        {"frames": [{"world_to_camera": np.eye(4).tolist(), "intrinsics": [1, 1, 1]}]},
        {"frames": [{"world_to_camera": (2 * np.eye(4)).tolist(), "intrinsics": [1, 1, 1, 1]}]},
        {"width": 0},
        {"height": "tall"},
        {"frames_per_second": -1},
        {"frames_per_second": 10**400},
        {"width": float("inf")},
        {"height": 10**9},
        {"frames": [{"world_to_camera": [[10**400] * 4] * 4, "intrinsics": [1, 1, 1, 1]}]},
        {"frames": [{"world_to_camera": [[0] * 4] * 4, "intrinsics": [1, 1, 1, 1]}]},
        {"frames": [{"world_to_camera": np.eye(4).tolist(), "intrinsics": [1, 1e300, 1, 1]}]},
    ],
)
def test_broken_paths_are_one_sentence(tmp_path, change):
    write_path(tmp_path / "path.json", _path())
    content = json.loads((tmp_path / "path.json").read_text()) | change
    (tmp_path / "path.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="camera path"):
        read_path(tmp_path / "path.json")


def test_a_picture_instead_of_a_path_is_not_printed(tmp_path):
    (tmp_path / "path.json").write_bytes(b"\x89PNG" + bytes(10_000))
    with pytest.raises(InputError, match="not the JSON of a path") as caught:
        read_path(tmp_path / "path.json")
    assert len(str(caught.value)) < 400


def test_a_capture_is_a_path(scene_folder):
    capture = read_capture(scene_folder)
    path = path_of_capture(capture)
    assert len(path) == 9 and (path.width, path.height) == (24, 18)
    np.testing.assert_allclose(path.world_to_camera[0], capture.views[0].world_to_camera)
    assert len(path_of_capture(capture, 30)) == 30
