"""What the browser gets: covariances, magnification, and cameras in both conventions."""

from __future__ import annotations

import numpy as np
import pytest

from splats.gaussians.harmonic_basis import CONSTANT_BASIS
from splats.video.camera_path import look_at
from splats.viewer.geometry import (
    drawn_cloud,
    look_at_point,
    pinhole_of_browser,
    pose_for_browser,
    pose_of_browser,
    up_direction,
    view_angle,
)
from tests.splats.formats.clouds import covariances, random_cloud


def test_covariances_colors_and_opacities_are_those_of_the_gaussians():
    cloud = random_cloud(50)
    drawn = drawn_cloud(cloud)
    unmagnified = drawn.covariances / drawn.magnification**2
    np.testing.assert_allclose(unmagnified, covariances(cloud), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(drawn.centers / drawn.magnification, cloud.means, rtol=1e-5)
    expected = np.clip(0.5 + CONSTANT_BASIS * cloud.harmonics[:, 0], 0, 1)
    np.testing.assert_allclose(drawn.colors, expected, atol=1e-6)
    np.testing.assert_allclose(drawn.opacities[:, 0], 1 / (1 + np.exp(-cloud.opacity_logits)), 1e-5)
    assert {array.dtype.name for array in (drawn.covariances, drawn.centers)} == {"float32"}


def test_small_gaussians_survive_half_floats_and_large_ones_stay_finite():
    """A standard deviation of 3e-4 has a variance of 9e-8: nearly nothing as a half float."""
    cloud = random_cloud(20)
    cloud.log_scales[:] = np.log(3e-4)
    drawn = drawn_cloud(cloud)
    half = drawn.covariances.astype(np.float16).astype(np.float64) / drawn.magnification**2
    np.testing.assert_allclose(half[:, 0, 0], 9e-8, rtol=2e-3)
    cloud.log_scales[3] = [-90, 30, 5]
    extreme = drawn_cloud(cloud)
    assert np.isfinite(extreme.covariances.astype(np.float16)).all()
    assert extreme.magnification == 1


def test_size_and_opacity_controls():
    cloud = random_cloud(60)
    double, plain = drawn_cloud(cloud, size=2.0), drawn_cloud(cloud)
    ratio = (double.covariances / double.magnification**2) / (
        plain.covariances / plain.magnification**2
    )
    np.testing.assert_allclose(ratio, 4.0, rtol=1e-3)
    faint = drawn_cloud(cloud, faintest=0.5)
    assert len(faint.centers) == (cloud.opacity_logits >= 0).sum() > 0
    assert faint.opacities.min() >= 0.5
    assert len(drawn_cloud(cloud, faintest=1.0).centers) == 0
    assert len(drawn_cloud(random_cloud(0)).centers) == 0


def test_poses_go_to_the_browser_and_back():
    pose = look_at((1.0, -2.0, 0.7), (0.1, 0.2, 0.3), (0, 0, 1))
    wxyz, position = pose_for_browser(pose)
    np.testing.assert_allclose(position, [1.0, -2.0, 0.7], atol=1e-12)
    np.testing.assert_allclose(pose_of_browser(wxyz, position), pose, atol=1e-12)
    # Orientation is camera to world: the third column is where the camera looks.
    forward = pose_of_browser(wxyz, position)[2, :3]
    wanted = np.array([0.1, 0.2, 0.3]) - position
    np.testing.assert_allclose(forward, wanted / np.linalg.norm(wanted), atol=1e-12)
    np.testing.assert_allclose(
        np.cross(look_at_point(pose, np.zeros(3)) - position, forward), 0, atol=1e-12
    )
    behind = look_at_point(pose, position - 5 * forward)
    assert (behind - position) @ forward > 0


@pytest.mark.parametrize("aspect", [0.4, 1.0, 1.777, 3.1])
def test_the_exact_picture_covers_the_window_whatever_its_shape(aspect):
    """A point in the corner of the window's frustum falls on the corner of the picture."""
    angle = 0.9
    intrinsics, width = pinhole_of_browser(angle, aspect, 360)
    assert width % 16 == 0 and abs(width / 360 - aspect) <= 8.01 / 360
    top = np.tan(angle / 2)
    corner = intrinsics @ np.array([aspect * top, top, 1.0])
    np.testing.assert_allclose(corner, [width, 360, 1])
    assert view_angle(intrinsics, 360) == pytest.approx(angle)


def test_a_principal_point_off_the_middle_keeps_the_whole_photograph_in_view():
    intrinsics = np.array([[100.0, 0, 50], [0, 100, 20], [0, 0, 1]])
    assert view_angle(intrinsics, 80) == pytest.approx(2 * np.arctan(0.6))


def test_up_is_up_in_the_photographs():
    poses = np.stack([look_at(eye, (0, 0, 0), (0, 1, 0)) for eye in ((1.0, 0, 2), (-1, 0, 2))])
    np.testing.assert_allclose(up_direction(poses), [0, 1, 0], atol=1e-12)
    upside = np.stack([poses[0], poses[0] * np.array([-1, -1, 1, 1])[:, None]])
    np.testing.assert_allclose(up_direction(upside), [0, 0, 1])
