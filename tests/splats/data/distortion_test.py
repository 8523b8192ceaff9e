"""Lens models and undistortion: closed forms, formulas written out, and inverses."""

from __future__ import annotations

import numpy as np
import pytest

from splats.data.camera_models import CAMERA_MODELS, Camera
from splats.data.distortion import distort, largest_radius, undistort_points
from splats.data.undistortion import build_remap, pinhole_of, sample_bilinear, undistort
from training.errors import InputError

HEAD = (500.0, 510.0, 322.0, 237.0)
LENSES = {
    "SIMPLE_RADIAL": (-0.1,),
    "RADIAL": (-0.1, 0.02),
    "OPENCV": (-0.1, 0.02, 0.001, -0.002),
    "FULL_OPENCV": (-0.1, 0.02, 0.001, -0.002, 0.01, 0.02, -0.01, 0.005),
    "OPENCV_FISHEYE": (0.02, -0.01, 0.004, -0.001),
    "FOV": (0.9,),
    "SIMPLE_RADIAL_FISHEYE": (0.03,),
    "RADIAL_FISHEYE": (0.03, -0.01),
    "THIN_PRISM_FISHEYE": (0.02, -0.01, 0.001, -0.002, 0.004, -0.001, 0.001, -0.002),
    "RAD_TAN_THIN_PRISM_FISHEYE": (
        *(0.02, -0.01, 0.004, -0.001, 0.0, 0.0),
        *(0.001, -0.002, 0.001, -0.002, 0.0005, 0.0003),
    ),
    "SIMPLE_DIVISION": (-0.15,),
    "DIVISION": (-0.15,),
    "SIMPLE_FISHEYE": (),
    "FISHEYE": (),
    "EUCM": (0.6, 1.1),
}


def _camera(name: str, width: int = 640, height: int = 480) -> Camera:
    model = next(row for row in CAMERA_MODELS if row.name == name)
    head = HEAD[1:] if model.single_focal else HEAD
    return Camera(name, width, height, (*head, *LENSES[name]))


def _plane(count: int = 50) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.6, 0.6, (count, 2))


def test_every_model_of_the_table_is_a_lens_a_pinhole_or_refused():
    names = {row.name for row in CAMERA_MODELS}
    assert names == {*LENSES, "PINHOLE", "SIMPLE_PINHOLE", "EQUIRECTANGULAR"}


@pytest.mark.parametrize("name", LENSES)
def test_newton_inverts_every_lens(name):
    plane = _plane()
    camera = _camera(name)
    np.testing.assert_allclose(undistort_points(camera, distort(camera, plane)), plane, atol=1e-7)


@pytest.mark.parametrize("name", LENSES)
def test_the_center_of_every_lens_is_a_fixed_point(name):
    assert np.allclose(distort(_camera(name), np.zeros((1, 2))), 0)


def test_opencv_lens_equals_its_formula_written_out():
    (x, y), (k1, k2, p1, p2) = (0.3, -0.2), LENSES["OPENCV"]
    square = x * x + y * y
    radial = 1 + k1 * square + k2 * square**2
    expected = [
        x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x),
        y * radial + 2 * p2 * x * y + p1 * (square + 2 * y * y),
    ]
    np.testing.assert_allclose(distort(_camera("OPENCV"), np.array([x, y])), expected, rtol=1e-12)


def test_plain_fisheye_radius_is_the_angle():
    angles = np.linspace(0.1, 1.4, 9)
    plane = np.stack([np.tan(angles), np.zeros(9)], -1)
    np.testing.assert_allclose(distort(_camera("FISHEYE"), plane)[:, 0], angles, rtol=1e-12)


def test_division_lens_satisfies_its_definition():
    plane = _plane()
    image = distort(_camera("DIVISION"), plane)
    back = image / (1 - 0.15 * np.sum(image**2, -1, keepdims=True))
    np.testing.assert_allclose(back, plane, rtol=1e-10)


def test_the_fold_of_a_barrel_lens_is_where_the_derivative_vanishes():
    bound = largest_radius(_camera("SIMPLE_RADIAL"))
    assert np.isclose(bound, np.sqrt(1 / 0.3), rtol=2e-3)


@pytest.mark.parametrize("name", LENSES)
def test_undistorted_images_have_no_invalid_pixel(name):
    remap = build_remap(_camera(name))
    assert remap.valid.all()
    assert remap.camera.model == "PINHOLE"


def test_the_output_rectangle_is_the_largest_upright_one():
    """Growing any side by two pixels must reach outside of the photograph."""
    camera = _camera("OPENCV")
    target = pinhole_of(camera)
    fx, fy, cx, cy = target.pinhole
    for left, right, top, bottom in np.eye(4, dtype=int) * 2:
        params = (fx, fy, cx + left, cy + top)
        wider = Camera("PINHOLE", target.width + left + right, target.height + top + bottom, params)
        assert not build_remap(camera, wider).valid.all()


def test_a_very_wide_fisheye_is_cut_and_masked():
    camera = Camera("FISHEYE", 400, 300, (100.0, 100.0, 200.0, 150.0))
    remap = build_remap(camera)
    assert remap.camera.width <= 800 and remap.camera.height <= 600
    assert 0.3 < remap.valid.mean() <= 1


def test_a_smooth_picture_seen_through_a_lens_is_restored():
    """The photograph is an analytic function of the ray; undistorted pixels must equal it."""

    def scene(plane: np.ndarray) -> np.ndarray:
        x, y = plane[..., 0], plane[..., 1]
        waves = [np.sin(9 * x + 2 * y), np.cos(7 * y), np.sin(5 * x * y + y)]
        return np.rint(127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)

    camera = _camera("OPENCV", 320, 240)
    camera = Camera("OPENCV", 320, 240, (260.0, 255.0, 163.0, 118.0, *LENSES["OPENCV"]))
    columns, rows = np.meshgrid(np.arange(320) + 0.5, np.arange(240) + 0.5)
    image_plane = np.stack([(columns - 163) / 260, (rows - 118) / 255], -1)
    photograph = scene(undistort_points(camera, image_plane))
    remap = build_remap(camera)
    fx, fy, cx, cy = remap.camera.pinhole
    columns, rows = np.meshgrid(
        np.arange(remap.camera.width) + 0.5, np.arange(remap.camera.height) + 0.5
    )
    expected = scene(np.stack([(columns - cx) / fx, (rows - cy) / fy], -1)).astype(int)
    difference = np.abs(undistort(photograph, remap).astype(int) - expected)
    assert difference.max() <= 2


def test_sampling_at_pixel_centers_returns_the_pixels():
    image = np.random.default_rng(1).integers(0, 256, (70, 9, 3), dtype=np.uint8)
    columns, rows = np.meshgrid(np.arange(9), np.arange(70))
    source = np.stack([columns, rows], -1).astype(np.float32)
    np.testing.assert_array_equal(sample_bilinear(image, source), image)


def test_panoramas_are_refused_in_one_sentence():
    camera = Camera("EQUIRECTANGULAR", 400, 200, (400.0, 200.0))
    with pytest.raises(InputError, match="EQUIRECTANGULAR"):
        build_remap(camera)


@pytest.mark.parametrize("name", [*LENSES, "PINHOLE", "SIMPLE_PINHOLE"])
def test_resizing_a_camera_scales_its_pixels_by_axis(name):
    head = HEAD[1:] if name == "SIMPLE_PINHOLE" else HEAD
    camera = Camera(name, 640, 480, head) if "PINHOLE" in name else _camera(name)
    other = camera.resized(213, 161)
    plane = _plane()

    def project(camera: Camera) -> np.ndarray:
        fx, fy, cx, cy = camera.pinhole
        return distort(camera, plane) * [fx, fy] + [cx, cy]

    np.testing.assert_allclose(project(other), project(camera) * [213 / 640, 161 / 480], rtol=1e-9)


def test_undistorted_fox_matches_the_reference_undistortion(data_root):
    """The reference went through Lanczos and JPEG (41 dB); not undistorting gives 28 dB."""
    from PIL import Image

    from splats.data.capture_reader import read_capture

    root = data_root / "splats"
    camera = read_capture(root / "fox").views[0].camera
    target = read_capture(root / "fox_pinhole").views[0].camera
    photograph = np.asarray(Image.open(root / "fox" / "images" / "0034.jpg").convert("RGB"))
    reference = np.asarray(Image.open(root / "fox_pinhole" / "images" / "0034.jpg").convert("RGB"))
    ours = undistort(photograph, build_remap(camera, target))
    error = np.mean((ours.astype(float) - reference) ** 2)
    assert 10 * np.log10(255**2 / error) > 40
