"""Our COLMAP reader, writer and lens models against pycolmap, where it is installed."""

from __future__ import annotations

import numpy as np
import pytest

from splats.data.camera_models import CAMERA_MODELS, Camera
from splats.data.colmap import read_model, write_model
from splats.data.distortion import distort

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
