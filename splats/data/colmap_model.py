"""What a COLMAP sparse model holds, whichever variant of its files it came from.

Poses are world to camera: `x_camera = R(quaternion) x_world + translation`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from splats.data.camera_models import Camera


@dataclass(frozen=True)
class ColmapImage:
    """One registered image.

    `quaternion` [4] float64, wxyz, world to camera; `translation` [3] float64, world units;
    `keypoints` [M,2] float64 pixels; `point_ids` [M] int64, -1 where untriangulated.
    """

    name: str
    camera_id: int
    quaternion: np.ndarray
    translation: np.ndarray
    keypoints: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    point_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True)
class ColmapPoints:
    """The sparse points.

    `ids` [N] uint64; `positions` [N,3] float64, world units; `colors` [N,3] uint8; `errors` [N]
    float64, pixels; `tracks` [sum of lengths,2] int32 (image id, keypoint index), cut by
    `track_lengths` [N].
    """

    ids: np.ndarray
    positions: np.ndarray
    colors: np.ndarray
    errors: np.ndarray
    track_lengths: np.ndarray
    tracks: np.ndarray

    @staticmethod
    def empty() -> ColmapPoints:
        """No points at all."""
        return ColmapPoints.without_tracks(np.zeros((0, 3)), np.zeros((0, 3), np.uint8))

    @staticmethod
    def without_tracks(positions: np.ndarray, colors: np.ndarray) -> ColmapPoints:
        """Points numbered from 1 that no image observes."""
        count = len(positions)
        return ColmapPoints(
            np.arange(1, count + 1, dtype=np.uint64),
            np.asarray(positions, np.float64),
            np.asarray(colors, np.uint8),
            np.zeros(count),
            np.zeros(count, np.int64),
            np.zeros((0, 2), np.int32),
        )


@dataclass(frozen=True)
class ColmapModel:
    """`cameras` and `images` by their COLMAP number, in file order, and the points."""

    cameras: dict[int, Camera]
    images: dict[int, ColmapImage]
    points: ColmapPoints
