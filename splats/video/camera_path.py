"""Camera paths: what to render after training. JSON in and out, interpolation, orbits.

A path belongs to the data set's own world; whoever renders a normalized model transforms the path
with the scene's normalization (`splats.data.normalization.transform_cameras`).

The JSON file: {"width", "height", "frames_per_second", "frames": [{"world_to_camera": 4x4 rows,
"intrinsics": [fx, fy, cx, cy] in pixels}, ...]}. Axes: x right, y down, z forward; pixel centers at
half integers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, Slerp

from splats.data.capture import FARTHEST, Capture
from splats.data.normalization import camera_centers
from splats.data.undistortion import pinhole_of
from training.errors import ConfigError, InputError

LARGEST_SIDE = 16_384  # pixels of a frame


@dataclass(frozen=True)
class CameraPath:
    """`world_to_camera` [frame,4,4] float64; `intrinsics` [frame,4] float64 fx fy cx cy, pixels."""

    world_to_camera: np.ndarray
    intrinsics: np.ndarray
    width: int
    height: int
    frames_per_second: float = 24.0

    def __len__(self) -> int:
        return len(self.world_to_camera)


def look_at(eye: Sequence[float], target: Sequence[float], up: Sequence[float]) -> np.ndarray:
    """World to camera [4,4] of a camera at `eye` that looks at `target`, `up` upwards in the image.

    Raises ConfigError when the three do not define a direction.
    """
    center, direction = np.asarray(eye, np.float64), np.subtract(target, eye).astype(np.float64)
    right = np.cross(direction, up)
    if np.linalg.norm(right) < 1e-9 * max(1.0, float(np.linalg.norm(direction))):
        raise ConfigError(f"A camera at {list(eye)} cannot look along its up direction {list(up)}.")
    forward = direction / np.linalg.norm(direction)
    right = right / np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = rotation, -rotation @ center
    return result


def orbit(
    count: int,
    *,
    center: Sequence[float] = (0, 0, 0),
    radius: float = 1.0,
    elevation: float = 30.0,
    up: Sequence[float] = (0, 0, 1),
) -> np.ndarray:
    """`count` world-to-camera matrices [count,4,4] on a circle around `center`, looking at it.

    `elevation` in degrees above the plane through `center` orthogonal to `up`, below 90.
    """
    if count < 1 or radius <= 0 or abs(elevation) >= 90:
        raise ConfigError(
            f"An orbit needs a count of at least 1, a positive radius and an elevation within 90 "
            f"degrees; got {count}, {radius}, {elevation}."
        )
    axis = np.asarray(up, np.float64) / np.linalg.norm(up)
    # The coordinate axis farthest from `up` is never parallel to it.
    first = np.cross(axis, np.eye(3)[np.argmin(np.abs(axis))])
    first /= np.linalg.norm(first)
    second = np.cross(axis, first)
    lift, reach = np.sin(np.radians(elevation)), np.cos(np.radians(elevation))
    angles = 2 * np.pi * np.arange(count) / count
    around = np.cos(angles)[:, None] * first + np.sin(angles)[:, None] * second
    eyes = np.asarray(center) + radius * (reach * around + lift * axis)
    return np.stack([look_at(eye, center, axis.tolist()) for eye in eyes.tolist()])


def interpolate(world_to_camera: np.ndarray, count: int) -> np.ndarray:
    """`count` poses through `world_to_camera` [view,4,4] in order, ends included.

    Centers follow a cubic spline over chord length and orientations a spherical interpolation, so
    that speed is near constant; views closer together than 1e-9 of the path are merged.
    """
    if count < 1 or len(world_to_camera) < 2:
        raise ConfigError("Interpolation needs at least two views and one frame.")
    centers = camera_centers(world_to_camera)
    steps = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    keep = np.concatenate([[True], steps > 1e-9 * max(steps.sum(), 1e-30)])
    if keep.sum() < 2:
        raise ConfigError("All views of the path stand at one place; interpolation needs two.")
    centers, rotations = centers[keep], world_to_camera[keep, :3, :3]
    times = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(centers, axis=0), axis=1))])
    wanted = np.linspace(0, times[-1], count)
    between = CubicSpline(times, centers)(wanted)
    turned = Slerp(times, Rotation.from_matrix(rotations))(wanted).as_matrix()
    result = np.tile(np.eye(4), (count, 1, 1))
    result[:, :3, :3] = turned
    result[:, :3, 3] = -np.einsum("vij,vj->vi", turned, between)
    return result


def path_of_capture(capture: Capture, count: int | None = None) -> CameraPath:
    """The views of a capture as a path, undistorted; `count`: that many interpolated frames.

    All frames take the pinhole camera of the first view. Views without a declared size (Blender)
    raise InputError.
    """
    camera = capture.views[0].camera
    if camera is None:
        raise InputError(f"{capture.folder} declares no image size; give a camera path in JSON.")
    pinhole = camera if camera.is_pinhole else pinhole_of(camera)
    if max(pinhole.width, pinhole.height) > LARGEST_SIDE:
        raise InputError(
            f"{capture.folder} declares images of {pinhole.width} x {pinhole.height} pixels; at "
            f"most {LARGEST_SIDE} a side can be drawn."
        )
    poses = np.stack([view.world_to_camera for view in capture.views])
    if count is not None:
        poses = interpolate(poses, count)
    intrinsics = np.tile(np.array(pinhole.pinhole), (len(poses), 1))
    return CameraPath(poses, intrinsics, pinhole.width, pinhole.height)


def write_path(file: Path | str, path: CameraPath) -> None:
    """Writes the JSON form of `path`."""
    frames = [
        {"world_to_camera": pose.tolist(), "intrinsics": values.tolist()}
        for pose, values in zip(path.world_to_camera, path.intrinsics)
    ]
    content = {
        "width": path.width,
        "height": path.height,
        "frames_per_second": path.frames_per_second,
        "frames": frames,
    }
    Path(file).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_path(file: Path | str) -> CameraPath:
    """Reads the JSON form; InputError when it is not one."""
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8-sig"))
        frames = content["frames"]
        poses = np.array([frame["world_to_camera"] for frame in frames], np.float64)
        intrinsics = np.array([frame["intrinsics"] for frame in frames], np.float64)
        width, height = int(content["width"]), int(content["height"])
        speed = float(content.get("frames_per_second", 24.0))
    except OSError as error:
        raise InputError(f"The camera path {file} cannot be read: {error.strerror}.") from error
    except KeyError as error:
        raise InputError(f"The camera path {file} lacks the key {error}; add it.") from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"The camera path {file} is not the JSON of a path ({str(error)[-80:]}); write it as "
            "splats.video.camera_path.write_path does."
        ) from error
    count = len(poses)
    if count == 0 or poses.shape != (count, 4, 4) or intrinsics.shape != (count, 4):
        raise InputError(f"The camera path {file} needs 4x4 poses and [fx, fy, cx, cy] per frame.")
    finite = (np.abs(poses) < FARTHEST).all() and (np.abs(intrinsics) < FARTHEST).all()
    if not finite or not _rigid(poses):
        raise InputError(
            f"The camera path {file} has a pose or intrinsics that are no finite rigid motion and "
            "pixels; export the path again."
        )
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE):
        raise InputError(
            f"The camera path {file} needs a width and a height from 1 to {LARGEST_SIDE} pixels."
        )
    if not 0 < speed <= 1000 or (intrinsics[:, :2] <= 0).any():
        raise InputError(
            f"The camera path {file} needs positive focal lengths and frames_per_second up to 1000."
        )
    return CameraPath(poses, intrinsics, width, height, speed)


def _rigid(poses: np.ndarray) -> bool:
    """Whether all of `poses` [frame,4,4] are a rotation and a shift."""
    rotation = poses[:, :3, :3]
    turns = np.allclose(rotation @ rotation.transpose(0, 2, 1), np.eye(3), atol=1e-4)
    last_row = np.allclose(poses[:, 3], [0, 0, 0, 1], atol=1e-6)
    return bool(turns and last_row and (np.linalg.det(rotation) > 0).all())
