"""What a browser draws: Gaussians as centers and covariances, and cameras between two conventions.

Both sides have cameras with x right, y down, z forward, and share the world of training. The
browser gives a camera as orientation and place (camera to world), a vertical field of view and the
aspect of its window; the renderer wants world to camera and a pinhole in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from splats.formats import GaussianCloud
from splats.formats.cloud import opacities
from splats.formats.quaternions import normalized
from splats.gaussians.harmonic_basis import constant_to_rgb

LARGEST_COVARIANCE = 6e4  # half floats, which the browser stores, end at 65504
LARGEST_MAGNIFICATION = 100.0


@dataclass(frozen=True)
class DrawnCloud:
    """Gaussians as the browser takes them, float32.

    centers [N, 3] and covariances [N, 3, 3], both of the world times `magnification`; colors
    [N, 3] in [0, 1]; opacities [N, 1]; `magnification`: the browser divides it out again.
    """

    centers: np.ndarray
    covariances: np.ndarray
    colors: np.ndarray
    opacities: np.ndarray
    magnification: float


def drawn_cloud(cloud: GaussianCloud, size: float = 1.0, faintest: float = 0.0) -> DrawnCloud:
    """The Gaussians for the browser: constant colors, since it knows no other harmonics.

    Covariances travel as half floats, too coarse for the variance of a small Gaussian (1e-6 and
    less), so that the world is magnified as far as the largest Gaussian allows.

    Args:
      size: factor on standard deviations.
      faintest: Gaussians of a smaller opacity are left out.
    """
    opacity = opacities(cloud.opacity_logits)
    cloud, opacity = cloud.select(opacity >= faintest), opacity[opacity >= faintest]
    scales = size * np.exp(np.clip(cloud.log_scales.astype(np.float64), -80, 20))
    largest = float(scales.max(initial=1e-6))
    magnification = float(np.clip(np.sqrt(LARGEST_COVARIANCE) / largest, 1, LARGEST_MAGNIFICATION))
    # scipy has the real part last.
    w, x, y, z = normalized(cloud.quaternions).T
    turns = Rotation.from_quat(np.stack([x, y, z, w], axis=1).reshape(-1, 4)).as_matrix()
    # A single Gaussian of more than 244 units is drawn smaller.
    factor = turns * (magnification * scales)[:, None, :]
    covariances = factor @ factor.transpose(0, 2, 1)
    return DrawnCloud(
        centers=(magnification * cloud.means).astype(np.float32),
        covariances=np.clip(covariances, -LARGEST_COVARIANCE, LARGEST_COVARIANCE).astype("f4"),
        colors=np.clip(constant_to_rgb(cloud.harmonics[:, 0]), 0, 1).astype(np.float32),
        opacities=opacity[:, None].astype(np.float32),
        magnification=magnification,
    )


def pose_for_browser(world_to_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orientation wxyz [4] and place [3] of a camera, of its matrix [4, 4]."""
    rotation = world_to_camera[:3, :3].astype(np.float64)
    x, y, z, w = Rotation.from_matrix(rotation.T).as_quat()
    return np.array([w, x, y, z]), -rotation.T @ world_to_camera[:3, 3].astype(np.float64)


def pose_of_browser(wxyz: np.ndarray, position: np.ndarray) -> np.ndarray:
    """World to camera [4, 4] float64 of a camera of the browser."""
    w, x, y, z = np.asarray(wxyz, np.float64)
    result = np.eye(4)
    result[:3, :3] = Rotation.from_quat([x, y, z, w]).as_matrix().T
    result[:3, 3] = -result[:3, :3] @ np.asarray(position, np.float64)
    return result


def view_angle(intrinsics: np.ndarray, height: int) -> float:
    """Vertical field of view, radians, of a pinhole [3, 3] with an image of `height` pixels.

    The browser has its principal point in the middle, so that the wider half counts twice.
    """
    above, below = intrinsics[1, 2], height - intrinsics[1, 2]
    return float(2 * np.arctan2(max(above, below), intrinsics[1, 1]))


def pinhole_of_browser(angle: float, aspect: float, height: int) -> tuple[np.ndarray, int]:
    """Pinhole [3, 3] float64 and width of a rendering of the browser's window.

    Args:
      angle: vertical field of view, radians; aspect: width by height of the window.
      height: pixels of the rendering. The width is rounded to 16 pixels, so that few sizes are
        compiled, and the focal lengths keep both angles: the picture is stretched to the window.
    """
    width = 16 * max(1, round(height * aspect / 16))
    tangent = np.tan(angle / 2)
    fx, fy = width / (2 * tangent * aspect), height / (2 * tangent)
    return np.array([[fx, 0, width / 2], [0, fy, height / 2], [0, 0, 1.0]]), width


def up_direction(world_to_camera: np.ndarray) -> np.ndarray:
    """Unit vector [3], up in the photographs on average, of poses [V, 4, 4]."""
    up = -world_to_camera[:, 1, :3].astype(np.float64).mean(axis=0)
    length = np.linalg.norm(up)
    return up / length if length > 1e-6 else np.array([0.0, 0.0, 1.0])


def look_at_point(world_to_camera: np.ndarray, toward: np.ndarray) -> np.ndarray:
    """The point [3] on a camera's axis nearest to `toward` [3], in front of it."""
    rotation = world_to_camera[:3, :3].astype(np.float64)
    center = -rotation.T @ world_to_camera[:3, 3].astype(np.float64)
    distance = float((toward - center) @ rotation[2])
    return center + max(distance, 0.1 * float(np.linalg.norm(toward - center)), 1e-3) * rotation[2]
