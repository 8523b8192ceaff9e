"""Turning photographs of a distorting lens into pinhole images, once, before training.

The output keeps the focal lengths of the input, so that the resolution at the center stays, and
takes the largest upright rectangle that the photograph fills (as COLMAP with no blank pixels).
Where that rectangle would be absurd (a wide fisheye) it is cut to `LARGEST_GROWTH` and pixels that
the lens never saw are marked invalid. Sampling is bilinear at the inverse-mapped position.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from splats.data.camera_models import Camera
from splats.data.distortion import distort, largest_radius, undistort_points
from training.errors import InputError

LARGEST_GROWTH = 2.0  # of a side: a fisheye's corners would need a plane without end
SMALLEST_SHRINK = 0.2  # of a side: less is not a wide lens but wrong parameters
_BAND = 64  # rows resampled at a time: the temporaries of a band stay in the cache


@dataclass(frozen=True)
class Remap:
    """Where each output pixel comes from.

    `source` [height,width,2] float32: column and row of the sample in the photograph, counted from
    the center of its first pixel; `valid` [height,width] bool; `camera`: the pinhole result.
    """

    camera: Camera
    source: np.ndarray
    valid: np.ndarray


def _border(camera: Camera, samples: int = 65) -> dict[str, np.ndarray]:
    """Plane coordinates [samples,2] along each side of the photograph; NaN where unreachable."""
    fx, fy, cx, cy = camera.pinhole
    along_x = (np.linspace(0, camera.width, samples) - cx) / fx
    along_y = (np.linspace(0, camera.height, samples) - cy) / fy
    left, right = -cx / fx, (camera.width - cx) / fx
    top, bottom = -cy / fy, (camera.height - cy) / fy
    sides = {
        "left": np.stack([np.full(samples, left), along_y], -1),
        "right": np.stack([np.full(samples, right), along_y], -1),
        "top": np.stack([along_x, np.full(samples, top)], -1),
        "bottom": np.stack([along_x, np.full(samples, bottom)], -1),
    }
    return {side: undistort_points(camera, points) for side, points in sides.items()}


def pinhole_of(camera: Camera) -> Camera:
    """The pinhole camera that the photographs of `camera` are undistorted to.

    Raises InputError for a lens whose image contains no usable rectangle.
    """
    fx, fy, cx, cy = camera.pinhole
    border = _border(camera)

    def inner(side: str, axis: int, sign: int, fallback: float) -> float:
        """The innermost plane coordinate along a side, within the allowed growth."""
        values = sign * border[side][:, axis]
        values = values[np.isfinite(values)]
        reach = values.min() if len(values) else np.inf
        return sign * min(reach, sign * fallback)

    x0 = inner("left", 0, -1, -LARGEST_GROWTH * cx / fx)
    x1 = inner("right", 0, 1, LARGEST_GROWTH * (camera.width - cx) / fx)
    y0 = inner("top", 1, -1, -LARGEST_GROWTH * cy / fy)
    y1 = inner("bottom", 1, 1, LARGEST_GROWTH * (camera.height - cy) / fy)
    width, height = int(fx * (x1 - x0)), int(fy * (y1 - y0))
    if width < SMALLEST_SHRINK * camera.width or height < SMALLEST_SHRINK * camera.height:
        raise InputError(
            f"Undistorting a {camera.model} camera leaves {width} x {height} of {camera.width} x "
            f"{camera.height} pixels; check its parameters {camera.params}."
        )
    # Rounding down leaves less than a pixel, which is shared by both sides.
    cx_new = -fx * x0 - (fx * (x1 - x0) - width) / 2
    cy_new = -fy * y0 - (fy * (y1 - y0) - height) / 2
    return Camera("PINHOLE", width, height, (fx, fy, float(cx_new), float(cy_new)))


def build_remap(camera: Camera, target: Camera | None = None) -> Remap:
    """The inverse map from `target` (default: `pinhole_of(camera)`) to photographs of `camera`."""
    target = target or pinhole_of(camera)
    fx, fy, cx, cy = target.pinhole
    x = (np.arange(target.width) + 0.5 - cx) / fx
    y = (np.arange(target.height) + 0.5 - cy) / fy
    plane = np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=-1)
    fx, fy, cx, cy = camera.pinhole
    # Minus a half: pixel centers lie at half integers, array indices at integers.
    source = distort(camera, plane) * np.array([fx, fy]) + np.array([cx, cy]) - 0.5
    inside = np.all(source >= -0.5, axis=-1)
    inside &= np.all(source <= np.array([camera.width, camera.height]) - 0.5, axis=-1)
    inside &= np.sum(plane * plane, axis=-1) <= largest_radius(camera) ** 2
    source = np.where(inside[..., None], source, 0.0).astype(np.float32)
    return Remap(target, source, inside)


def sample_bilinear(image: np.ndarray, source: np.ndarray) -> np.ndarray:
    """`image` [height,width,channel] uint8 at `source` [rows,columns,2]; edges are repeated."""
    result = np.empty((*source.shape[:2], image.shape[2]), np.uint8)
    for start in range(0, len(source), _BAND):
        result[start : start + _BAND] = _sample_band(image, source[start : start + _BAND])
    return result


def _sample_band(image: np.ndarray, source: np.ndarray) -> np.ndarray:
    height, width, channels = image.shape
    flat = image.reshape(-1, channels)
    x = np.clip(source[..., 0], 0, width - 1)
    y = np.clip(source[..., 1], 0, height - 1)
    x0, y0 = x.astype(np.int64), y.astype(np.int64)
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]

    def row(rows: np.ndarray) -> np.ndarray:
        first, second = flat[rows * width + x0], flat[rows * width + x1]
        return first + (second.astype(np.float32) - first) * fx

    top, bottom = row(y0), row(y1)
    return np.rint(top + (bottom - top) * fy).astype(np.uint8)


def undistort(image: np.ndarray, remap: Remap) -> np.ndarray:
    """The pinhole image [height,width,channel] uint8 of a photograph; invalid pixels are 0."""
    result = sample_bilinear(image, remap.source)
    result[~remap.valid] = 0
    return result
