"""What a data set declares before any image is opened: views, cameras, points, its own split.

World axes are the data set's own; cameras look along +z with x right and y down (COLMAP), whatever
the convention of the files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from splats.data.camera_models import Camera
from training.errors import InputError

FARTHEST = 1e9  # units from the origin of the data set; also georeferenced scenes stay far below
_ASPECT_TOLERANCE = 0.05  # of the sides' ratio, beyond what rounding of sizes explains


@dataclass(frozen=True)
class View:
    """One photograph as declared.

    `name` is unique in the capture and relative to the image folder (COLMAP) or to the data set
    (others); `world_to_camera` [4,4] float64; `camera` is None when the size is only in the image
    (Blender), then `angle` is the horizontal field of view in radians; `mask` is relative to the
    data set.
    """

    name: str
    world_to_camera: np.ndarray
    camera: Camera | None
    angle: float | None = None
    mask: str | None = None

    def camera_for(self, width: int, height: int) -> Camera:
        """The camera of an image of this actual size, each axis rescaled by actual/declared."""
        if self.camera is not None:
            self._check_aspect(width, height)
            return self.camera.resized(width, height)
        focal = 0.5 * width / np.tan(0.5 * float(self.angle or 0))
        return Camera("PINHOLE", width, height, (focal, focal, width / 2, height / 2))

    def _check_aspect(self, width: int, height: int) -> None:
        """Raises InputError where the image cannot be a resized version of the declared one."""
        assert self.camera is not None
        wide, high = self.camera.width, self.camera.height
        # A resized side may be rounded either way: one pixel of each.
        slack = _ASPECT_TOLERANCE + 1 / width + 1 / height
        if abs(np.log(width / height * high / wide)) > slack:
            raise InputError(
                f"The image {self.name} has {width} x {height} pixels and its camera is declared "
                f"for {wide} x {high}, which is another shape; restore the image that was "
                "registered (not rotated, not cropped)."
            )


@dataclass(frozen=True)
class Capture:
    """A data set. `points` [N,3] float64 and `colors` [N,3] uint8; `lists`: its own split."""

    kind: str
    folder: Path
    views: tuple[View, ...]
    points: np.ndarray
    colors: np.ndarray
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
