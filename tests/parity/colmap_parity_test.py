"""Our COLMAP reader, writer and lens models against pycolmap, where it is installed."""

from __future__ import annotations

import numpy as np
import pytest

from splats.data.camera_models import CAMERA_MODELS, Camera
from splats.data.colmap import read_model, write_model
from splats.data.distortion import distort
from splats.data.undistortion import build_remap, undistort

pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed")
pytestmark = pytest.mark.parity


@pytest.mark.parametrize("binary", [True, False])
def test_pycolmap_reads_what_we_write(data_root, tmp_path, binary):
    ours = read_model(data_root / "splats" / "fox" / "sparse" / "0")
    write_model(tmp_path, ours, binary=binary)
    theirs = pycolmap.Reconstruction(str(tmp_path))
    assert theirs.num_images() == len(ours.images)
    for number, image in ours.images.items():
        other = theirs.images[number]
        assert other.name == image.name
        x, y, z, w = other.cam_from_world().rotation.quat
        unit = image.quaternion / np.linalg.norm(image.quaternion)
        np.testing.assert_allclose([w, x, y, z], unit, atol=1e-12)
        np.testing.assert_allclose(other.cam_from_world().translation, image.translation)
    for row in range(0, len(ours.points.ids), 97):
        other = theirs.points3D[int(ours.points.ids[row])]
        np.testing.assert_allclose(other.xyz, ours.points.positions[row])
        assert other.track.length() == ours.points.track_lengths[row]


@pytest.mark.parametrize("binary", [True, False])
def test_we_read_what_pycolmap_writes(data_root, tmp_path, binary):
    source = data_root / "splats" / "fox" / "sparse" / "0"
    theirs = pycolmap.Reconstruction(str(source))
    theirs.write_binary(str(tmp_path)) if binary else theirs.write_text(str(tmp_path))
    ours = read_model(tmp_path)
    assert len(ours.images) == theirs.num_images()
    assert len(ours.points.ids) == theirs.num_points3D()
    for number, image in ours.images.items():
        assert len(image.keypoints) == len(theirs.images[number].points2D)


@pytest.mark.parametrize("row", CAMERA_MODELS, ids=lambda row: row.name)
def test_parameter_counts_and_projections_agree(row):
    """Every model that the installed pycolmap knows; newer ones are skipped by name."""
    if not hasattr(pycolmap.CameraModelId, row.name):
        pytest.skip(f"this pycolmap has no {row.name}")
    rng = np.random.default_rng(row.number)
    count = len(row.parameters)
    theirs = pycolmap.Camera.create_from_model_id(
        1, getattr(pycolmap.CameraModelId, row.name), 500.0, 640, 480
    )
    assert len(theirs.params) == count
    if row.name == "EQUIRECTANGULAR":
        return
    head = 3 if row.single_focal else 4
    tail = rng.uniform(-0.02, 0.02, count - head)
    if row.name in ("FOV", "EUCM"):
        tail = np.array([0.9]) if row.name == "FOV" else np.array([0.6, 1.1])
    params = np.concatenate([[500.0, 510.0, 322.0, 237.0][4 - head :], tail])
    theirs.params = params
    camera = Camera(row.name, 640, 480, tuple(params))
    plane = rng.uniform(-0.6, 0.6, (40, 2))
    fx, fy, cx, cy = camera.pinhole
    ours = distort(camera, plane) * [fx, fy] + [cx, cy]
    rays = np.concatenate([plane, np.ones((40, 1))], 1)
    np.testing.assert_allclose(ours, theirs.img_from_cam(rays), atol=1e-6)


@pytest.mark.parametrize("row", CAMERA_MODELS[:-1], ids=lambda row: row.name)
def test_undistorted_pixels_show_the_rays_that_pycolmap_says(row):
    """A photograph of a smooth pattern on the plane z = 1, made with pycolmap's inverse lens."""
    if not hasattr(pycolmap.CameraModelId, row.name):
        pytest.skip(f"this pycolmap has no {row.name}")

    def pattern(plane):
        x, y = plane[..., 0], plane[..., 1]
        waves = [np.sin(5 * x + 2 * y), np.cos(4 * y - x), np.sin(3 * x * y + y)]
        return 127.5 + 120 * np.stack(waves, axis=-1)

    head = [80.0, 47.0, 36.0] if row.single_focal else [80.0, 82.0, 47.0, 36.0]
    tail = np.random.default_rng(row.number).uniform(-0.02, 0.02, len(row.parameters) - len(head))
    if row.name in ("FOV", "EUCM"):
        tail = np.array([0.7]) if row.name == "FOV" else np.array([0.6, 1.1])
    params = (*head, *tail.tolist())
    theirs = pycolmap.Camera(model=row.name, width=96, height=72, params=list(params))
    columns, rows = np.meshgrid(np.arange(96) + 0.5, np.arange(72) + 0.5)
    pixels = np.stack([columns, rows], axis=-1).reshape(-1, 2)
    rays = np.asarray(theirs.cam_from_img(pixels)).reshape(72, 96, -1)[..., :2]
    photograph = np.rint(pattern(rays)).clip(0, 255).astype(np.uint8)
    remap = build_remap(Camera(row.name, 96, 72, params))
    fx, fy, cx, cy = remap.camera.pinhole
    columns, rows = np.meshgrid(
        (np.arange(remap.camera.width) + 0.5 - cx) / fx,
        (np.arange(remap.camera.height) + 0.5 - cy) / fy,
    )
    expected = pattern(np.stack([columns, rows], axis=-1))
    error = np.abs(undistort(photograph, remap) - expected)[remap.valid]
    assert remap.valid.mean() > 0.9 and remap.valid.size > 0.5 * 96 * 72
    # Rounding twice and bilinear sampling; half a pixel off would be 2 on average.
    assert error.mean() < 0.6 and error.max() < 3.0
