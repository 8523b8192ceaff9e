"""The camera models of COLMAP: their numbers, names and parameters.

A `Camera` is what a reconstruction declares. Axes: x right, y down, z forward. Pixel centers lie at
half integers, so that a `width` x `height` image spans [0, width] x [0, height].
Source: the model table of COLMAP 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.errors import InputError


@dataclass(frozen=True)
class CameraModel:
    """One row of the table. `single_focal` models start `f cx cy`, the others `fx fy cx cy`."""

    number: int
    name: str
    parameters: tuple[str, ...]

    @property
    def single_focal(self) -> bool:
        return self.parameters[0] == "f"


_TABLE = """
0 SIMPLE_PINHOLE f cx cy
1 PINHOLE fx fy cx cy
2 SIMPLE_RADIAL f cx cy k
3 RADIAL f cx cy k1 k2
4 OPENCV fx fy cx cy k1 k2 p1 p2
5 OPENCV_FISHEYE fx fy cx cy k1 k2 k3 k4
6 FULL_OPENCV fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6
7 FOV fx fy cx cy omega
8 SIMPLE_RADIAL_FISHEYE f cx cy k
9 RADIAL_FISHEYE f cx cy k1 k2
10 THIN_PRISM_FISHEYE fx fy cx cy k1 k2 p1 p2 k3 k4 sx1 sy1
11 RAD_TAN_THIN_PRISM_FISHEYE fx fy cx cy k0 k1 k2 k3 k4 k5 p0 p1 s0 s1 s2 s3
12 SIMPLE_DIVISION f cx cy k
13 DIVISION fx fy cx cy k
14 SIMPLE_FISHEYE f cx cy
15 FISHEYE fx fy cx cy
16 EUCM fx fy cx cy alpha beta
17 EQUIRECTANGULAR w h
"""


def _parse_table() -> tuple[CameraModel, ...]:
    rows = (line.split() for line in _TABLE.strip().splitlines())
    return tuple(CameraModel(int(row[0]), row[1], tuple(row[2:])) for row in rows)


CAMERA_MODELS = _parse_table()
MODEL_BY_NUMBER = {model.number: model for model in CAMERA_MODELS}
MODEL_BY_NAME = {model.name: model for model in CAMERA_MODELS}


LARGEST_SIDE = 10**6  # pixels of an image
_LARGEST_VALUE = 1e9  # pixels of a focal length or principal point, still exact enough in float32


def camera_problem(model: str, width: int, height: int, params: Sequence[float]) -> str | None:
    """Why no camera can have these values, in words; None where it can."""
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE):
        return f"the impossible size {width} x {height}"
    if not np.isfinite(params).all():
        return "parameters that are not finite"
    # Its parameters repeat the size, which is checked already.
    if model == "EQUIRECTANGULAR":
        return None
    focals = 1 if MODEL_BY_NAME[model].single_focal else 2
    if not all(0 < value < _LARGEST_VALUE for value in params[:focals]):
        return f"the focal length {min(params[:focals]):g}, which must be positive and finite"
    if max(abs(value) for value in params[focals : focals + 2]) > _LARGEST_VALUE:
        return f"the principal point {tuple(params[focals : focals + 2])}, far outside of the image"
    return None


@dataclass(frozen=True)
class Camera:
    """A declared camera: `model` name, size in pixels, `params` in the model's own order."""

    model: str
    width: int
    height: int
    params: tuple[float, ...]

    def __post_init__(self):
        expected = len(MODEL_BY_NAME[self.model].parameters)
        if len(self.params) != expected:
            raise InputError(
                f"A {self.model} camera has {len(self.params)} parameters and needs {expected}; "
                "correct the camera file."
            )

    @property
    def is_pinhole(self) -> bool:
        """True when the camera has no distortion at all."""
        if self.model in ("PINHOLE", "SIMPLE_PINHOLE"):
            return True
        # Only these: a fisheye with zeros still bends, since its radius is the angle.
        polynomial = self.model in ("SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")
        return polynomial and not any(self.distortion)

    @property
    def pinhole(self) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy in pixels; InputError for a model without a focal length."""
        if self.model == "EQUIRECTANGULAR":
            raise InputError(
                "An EQUIRECTANGULAR camera has no focal length and cannot become one pinhole "
                "image; cut the panoramas into perspective views first."
            )
        if MODEL_BY_NAME[self.model].single_focal:
            focal, cx, cy = self.params[:3]
            return focal, focal, cx, cy
        fx, fy, cx, cy = self.params[:4]
        return fx, fy, cx, cy

    @property
    def distortion(self) -> tuple[float, ...]:
        """The parameters after the focal lengths and the principal point."""
        return self.params[3 if MODEL_BY_NAME[self.model].single_focal else 4 :]

    def resized(self, width: int, height: int) -> Camera:
        """The same camera for an image of another size; each axis is scaled by its own ratio."""
        if (width, height) == (self.width, self.height):
            return self
        fx, fy, cx, cy = self.pinhole
        ratio_x, ratio_y = width / self.width, height / self.height
        model, params = self.model, self.params
        # One focal length cannot hold two: the model that contains this one takes its place.
        if MODEL_BY_NAME[model].single_focal and not np.isclose(ratio_x, ratio_y, rtol=1e-12):
            model, params = _with_two_focals(self)
        head = (fx * ratio_x, fy * ratio_y, cx * ratio_x, cy * ratio_y)
        if MODEL_BY_NAME[model].single_focal:
            return replace(
                self,
                width=width,
                height=height,
                params=(*(head[i] for i in (0, 2, 3)), *params[3:]),
            )
        return Camera(model, width, height, (*head, *params[4:]))


# Each single-focal model as the two-focal model that contains it; zeros fill what it lacks.
_TWO_FOCALS = {
    "SIMPLE_PINHOLE": ("PINHOLE", 0),
    "SIMPLE_RADIAL": ("OPENCV", 4),
    "RADIAL": ("OPENCV", 4),
    "SIMPLE_RADIAL_FISHEYE": ("OPENCV_FISHEYE", 4),
    "RADIAL_FISHEYE": ("OPENCV_FISHEYE", 4),
    "SIMPLE_DIVISION": ("DIVISION", 1),
    "SIMPLE_FISHEYE": ("FISHEYE", 0),
}


def _with_two_focals(camera: Camera) -> tuple[str, tuple[float, ...]]:
    name, extra = _TWO_FOCALS[camera.model]
    distortion = camera.distortion + (0.0,) * (extra - len(camera.distortion))
    return name, (*camera.pinhole, *distortion)
