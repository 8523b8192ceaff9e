"""COLMAP models: both variants, real files, and damage of every kind."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splats.data.camera_models import CAMERA_MODELS, Camera
from splats.data.colmap import read_model, write_model
from splats.data.colmap_model import ColmapImage, ColmapModel, ColmapPoints
from training.errors import InputError


def _model() -> ColmapModel:
    """Every camera model, an image without keypoints between two with, names with folders."""
    rng = np.random.default_rng(3)
    cameras = {
        row.number + 1: Camera(row.name, 640, 480, tuple(rng.uniform(0.1, 1, len(row.parameters))))
        for row in CAMERA_MODELS
    }
    images = {}
    for number, keypoints in ((7, 2), (8, 0), (3, 5)):
        pose = rng.normal(size=7)
        images[number] = ColmapImage(
            f"left camera/{number:04d}.jpg",
            number,
            pose[:4],
            pose[4:],
            rng.uniform(0, 600, (keypoints, 2)),
            np.array([-1, 4, 9, 2, -1][:keypoints], np.int64),
        )
    points = ColmapPoints(
        np.array([4, 9, 2], np.uint64),
        rng.normal(size=(3, 3)),
        rng.integers(0, 256, (3, 3), dtype=np.uint8),
        rng.uniform(size=3),
        np.array([2, 0, 1]),
        np.array([[7, 1], [3, 1], [3, 3]], np.int32),
    )
    return ColmapModel(cameras, images, points)


def _assert_same(a: ColmapModel, b: ColmapModel) -> None:
    assert a.cameras == b.cameras
    assert list(a.images) == list(b.images)
    for number, image in a.images.items():
        other = b.images[number]
        assert (image.name, image.camera_id) == (other.name, other.camera_id)
        for key in ("quaternion", "translation", "keypoints", "point_ids"):
            np.testing.assert_array_equal(getattr(image, key), getattr(other, key))
    for key in ("ids", "positions", "colors", "errors", "track_lengths", "tracks"):
        np.testing.assert_array_equal(getattr(a.points, key), getattr(b.points, key))


@pytest.mark.parametrize("binary", [True, False])
def test_writing_and_reading_keeps_every_value(tmp_path, binary):
    write_model(tmp_path, _model(), binary=binary)
    _assert_same(read_model(tmp_path), _model())


def test_real_binary_model_has_the_documented_counts(data_root):
    model = read_model(data_root / "splats" / "fox" / "sparse" / "0")
    assert len(model.images) == 50 and len(model.points.ids) == 13_564
    (camera,) = model.cameras.values()
    assert (camera.model, camera.width, camera.height) == ("OPENCV", 1080, 1920)
    assert model.points.track_lengths.sum() == 90_522
    assert np.isclose(model.points.track_lengths.mean(), 6.67, atol=0.01)
    assert np.isclose(model.points.errors.mean(), 0.889, atol=1e-3)


def test_real_model_reprojects_its_points_within_its_own_errors(data_root):
    """Poses, intrinsics, tracks and axes together: the mean residual must be COLMAP's."""
    from splats.data.capture_reader import rotation_from_quaternion
    from splats.data.distortion import distort

    model = read_model(data_root / "splats" / "fox" / "sparse" / "0")
    (camera,) = model.cameras.values()
    row = {int(number): index for index, number in enumerate(model.points.ids)}
    errors = np.zeros(len(row))
    for image in model.images.values():
        seen = image.point_ids >= 0
        rows = [row[int(number)] for number in image.point_ids[seen]]
        points = model.points.positions[rows] @ rotation_from_quaternion(image.quaternion).T
        points = points + image.translation
        fx, fy, cx, cy = camera.pinhole
        pixels = distort(camera, points[:, :2] / points[:, 2:]) * [fx, fy] + [cx, cy]
        distance = np.linalg.norm(pixels - image.keypoints[seen], axis=1)
        np.add.at(errors, rows, distance)
    errors /= model.points.track_lengths
    np.testing.assert_allclose(errors, model.points.errors, atol=1e-4)


def test_binary_files_are_reproduced_byte_for_byte(data_root, tmp_path):
    source = data_root / "splats" / "fox_pinhole" / "sparse" / "0"
    write_model(tmp_path, read_model(source))
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        assert (tmp_path / name).read_bytes() == (source / name).read_bytes()


def test_text_model_with_empty_keypoint_lines_is_read_in_pairs(tmp_path):
    write_model(tmp_path, _model(), binary=False)
    lines = ["# comment", "1 1 0 0 0 0 0 0 1 a.png", "", "2 1 0 0 0 0 0 0 1 b.png", "1 2 -1", ""]
    (tmp_path / "images.txt").write_text("\n".join(lines))
    images = read_model(tmp_path).images
    assert [images[n].name for n in (1, 2)] == ["a.png", "b.png"]
    assert [len(images[n].keypoints) for n in (1, 2)] == [0, 1]


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_truncation_anywhere_names_file_position_and_record(tmp_path, name):
    write_model(tmp_path, _model())
    whole = (tmp_path / name).read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(InputError, match=rf"{name} is damaged at byte \d+: .+"):
            read_model(tmp_path)


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_enormous_counts_are_refused_without_allocating(tmp_path, name):
    write_model(tmp_path, _model())
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(struct.pack("<Q", 10**12) + whole[8:])
    with pytest.raises(InputError, match="claims 1000000000000"):
        read_model(tmp_path)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
@pytest.mark.parametrize("binary", [True, False])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_bytes_never_crash_the_reader(tmp_path, name, binary, data):
    write_model(tmp_path, _model(), binary=binary)
    path = tmp_path / f"{name}.{'bin' if binary else 'txt'}"
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        read_model(tmp_path)
    except InputError as error:
        assert str(tmp_path) in str(error) or "parameters" in str(error)


def test_a_track_length_beyond_any_file_is_refused(tmp_path):
    write_model(tmp_path, _model())
    content = bytearray((tmp_path / "points3D.bin").read_bytes())
    content[8 + 43 : 8 + 51] = struct.pack("<Q", 2**64 - 1)
    (tmp_path / "points3D.bin").write_bytes(content)
    with pytest.raises(InputError, match="the track of point 0 needs"):
        read_model(tmp_path)


def test_unknown_models_are_named(tmp_path):
    write_model(tmp_path, _model())
    content = bytearray((tmp_path / "cameras.bin").read_bytes())
    content[12:16] = struct.pack("<i", 99)
    (tmp_path / "cameras.bin").write_bytes(content)
    with pytest.raises(InputError, match="unknown model number 99"):
        read_model(tmp_path)
    write_model(tmp_path / "text", _model(), binary=False)
    (tmp_path / "text" / "cameras.txt").write_text("1 SHINY 3 4 5\n")
    with pytest.raises(InputError, match="line 1: unknown camera model SHINY"):
        read_model(tmp_path / "text")


def test_contradictions_between_the_files_are_refused(tmp_path):
    model = _model()
    first = model.images[7]
    images = {**model.images, 9: replace(first)}
    write_model(tmp_path, replace(model, images=images))
    with pytest.raises(InputError, match="appears twice"):
        read_model(tmp_path)
    write_model(tmp_path, replace(model, images={7: replace(first, camera_id=77)}))
    with pytest.raises(InputError, match="uses camera 77"):
        read_model(tmp_path)
    broken = replace(first, quaternion=np.full(4, np.nan))
    write_model(tmp_path, replace(model, images={7: broken}))
    with pytest.raises(InputError, match="not finite"):
        read_model(tmp_path)


def test_a_model_without_points_is_read_as_empty(tmp_path):
    write_model(tmp_path, _model())
    (tmp_path / "points3D.bin").unlink()
    assert read_model(tmp_path).points.positions.shape == (0, 3)


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_a_count_that_is_too_small_is_refused_rather_than_records_dropped(tmp_path, name):
    write_model(tmp_path, _model())
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(struct.pack("<Q", 2) + whole[8:])
    with pytest.raises(InputError, match=rf"{name} is damaged at byte \d+: \d+ bytes follow"):
        read_model(tmp_path)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("params", [(0.0, 320.0, 240.0), (-500.0, 320.0, 240.0), (5.0, 1e30, 2.0)])
def test_impossible_intrinsics_are_refused_where_they_are_read(tmp_path, binary, params):
    camera = Camera("SIMPLE_PINHOLE", 640, 480, params)
    write_model(tmp_path, replace(_model(), cameras={1: camera}), binary=binary)
    with pytest.raises(InputError, match=r"cameras\.(bin|txt).*(focal length|principal point)"):
        read_model(tmp_path)


def test_a_byte_order_mark_before_the_comments_is_no_camera(tmp_path):
    write_model(tmp_path, _model(), binary=False)
    for path in tmp_path.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    _assert_same(read_model(tmp_path), _model())
