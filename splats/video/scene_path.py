"""Camera paths that follow from the cameras of a scene: around what they look at, or along them.

A scene that was photographed from one side has nothing to show from the other: there the orbit
swings to and fro inside of the captured arc instead of going round.

Vocabulary: the *focus* is the point that all views look at; *azimuth* is the angle of a camera
around the focus, about the mean up direction; the *arc* is the shortest range of azimuths with all
cameras in it. Paths are in the normalized world, of the size and pinhole of the first view.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from splats.data.normalization import camera_centers
from splats.data.scene_facts import SceneFacts
from splats.video.camera_path import CameraPath, interpolate, look_at
from training.errors import InputError

# Smallest share of the rays' directions that must differ, for a common point to be well defined.
LEAST_CONVERGENCE = 0.02
# Radians without any camera, up to which a circle is still closed: what is seen from both sides of
# such a gap is mostly seen inside of it.
CLOSED_GAP = np.radians(100.0)
SWING = 0.9  # of the arc, so that the ends are not the outermost photographs themselves


@dataclass(frozen=True)
class Surroundings:
    """Where the cameras of a scene stand around their focus.

    Attributes:
      focus: [3].
      axes: [3,3], rows: azimuth 0, azimuth 90 degrees, up.
      middle, arc: azimuth of the middle of the arc and its width, radians; the width is 2 pi where
        no gap is wider than `CLOSED_GAP`.
      radius, height: medians over the cameras, from the axis and above the focus.
    """

    focus: np.ndarray
    axes: np.ndarray
    middle: float
    arc: float
    radius: float
    height: float

    @property
    def closed(self) -> bool:
        """Whether cameras stand all around."""
        return self.arc >= 2 * np.pi


def surroundings(facts: SceneFacts) -> Surroundings:
    """Of a scene.

    Raises:
      InputError: the views look in one direction, so that they have no common point.
    """
    poses = facts.world_to_camera.astype(np.float64)
    centers, forward = camera_centers(poses), poses[:, 2, :3]
    # Rows are the camera's axes in the world: the second points down, the third forward.
    up = -poses[:, 1, :3].mean(axis=0)
    up /= np.linalg.norm(up)
    focus = common_point(centers, forward)
    # The coordinate axis farthest from `up` is never parallel to it.
    first = np.cross(up, np.eye(3)[np.argmin(np.abs(up))])
    first /= np.linalg.norm(first)
    axes = np.stack([first, np.cross(up, first), up])
    along = (centers - focus) @ axes.T
    middle, arc = covering_arc(np.arctan2(along[:, 1], along[:, 0]))
    radius = float(np.median(np.hypot(along[:, 0], along[:, 1])))
    return Surroundings(focus, axes, middle, arc, radius, float(np.median(along[:, 2])))


def covering_arc(azimuths: np.ndarray) -> tuple[float, float]:
    """Middle and width of the shortest arc over all azimuths [V]; 2 pi where it is closed."""
    ordered = np.sort(azimuths)
    gaps = np.diff(ordered, append=ordered[0] + 2 * np.pi)
    widest = int(gaps.argmax())
    if gaps[widest] <= CLOSED_GAP:
        return 0.0, 2 * np.pi
    arc = 2 * np.pi - float(gaps[widest])
    # It begins behind the gap, at the next camera.
    return float(ordered[(widest + 1) % len(ordered)]) + arc / 2, arc


def orbit_of_scene(facts: SceneFacts, count: int) -> CameraPath:
    """Around the focus at the median distance and height: a circle, or a swing within the arc.

    Raises:
      InputError: the views look in one direction, so that they have no common point.
    """
    around = surroundings(facts)
    turns = 2 * np.pi * np.arange(count) / count
    if not around.closed:
        turns = around.middle + SWING * around.arc / 2 * np.sin(turns)
    offsets = np.stack(
        [
            around.radius * np.cos(turns),
            around.radius * np.sin(turns),
            np.full(count, around.height),
        ],
        axis=1,
    )
    up, focus = around.axes[2].tolist(), around.focus.tolist()
    eyes = (around.focus + offsets @ around.axes).tolist()
    return _of_first_view(np.stack([look_at(eye, focus, up) for eye in eyes]), facts)


def path_of_scene(facts: SceneFacts, count: int) -> CameraPath:
    """Along the photographs in the order of their names.

    Raises:
      ConfigError: they were all taken at one place.
    """
    return _of_first_view(interpolate(facts.world_to_camera.astype(np.float64), count), facts)


def _of_first_view(world_to_camera: np.ndarray, facts: SceneFacts) -> CameraPath:
    width, height = (int(side) for side in facts.sizes[0])
    pinhole = facts.intrinsics[0][[0, 1, 0, 1], [0, 1, 2, 2]].tolist()
    return CameraPath(world_to_camera, np.tile(pinhole, (len(world_to_camera), 1)), width, height)


def common_point(centers: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """The point [3] nearest to all optical axes, by least squares.

    Args:
      centers, forward: [view, 3], places and unit directions.

    Raises:
      InputError: nearly parallel axes.
    """
    # I - f f^T measures the distance from an axis; summed, it is singular for parallel axes.
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]
    total = across.sum(axis=0)
    if np.linalg.eigvalsh(total)[0] < LEAST_CONVERGENCE * len(centers):
        raise InputError(
            "the views of this scene look in nearly one direction, so there is nothing to orbit "
            "around; pass --input path for frames along the photographs"
        )
    return np.linalg.solve(total, np.einsum("vij,vj->i", across, centers))
