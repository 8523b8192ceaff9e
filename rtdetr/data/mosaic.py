"""Four pictures in one, then turned, moved and scaled (DEIM, Huang et al. 2025, section 3.1).

More objects in a picture give more matched queries an update. Each part is resized to a common
shorter side and lies in the upper left corner of its quarter; quarters are as high and wide as the
largest part.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from rtdetr.boxes import xyxy_px
from rtdetr.data.geometry import Size, content_size
from rtdetr.data.picture import LEAST_SIDE, Picture

PARTS = 4
DEGREES = 10.0  # turned by up to so much to either side
MOVED = 0.1  # by up to this part of height and width, either way
SCALES = (0.5, 1.5)
LONGEST = 4  # shorter sides; a strip of 1 × 3000 px would else become a picture of gigabytes


def mosaic(
    parts: Sequence[Picture], canvas: Size, resize: str, generator: np.random.Generator, fill: int
) -> Picture:
    """One picture of four, already as large as it will be on the canvas.

    Args:
      parts: in the order upper left, upper right, lower left, lower right.
      resize: "squash" or "letterbox".
      fill: value of pixels outside of all parts.
    """
    # As much detail as the canvas can show of two parts side by side.
    scaled = [_resized(part, min(canvas) // 2) for part in parts]
    quarter = max(p.size[0] for p in scaled), max(p.size[1] for p in scaled)
    whole = _assembled(scaled, quarter, fill)
    size = content_size(whole.size, canvas, resize)
    stretch = np.diag([size[1] / whole.size[1], size[0] / whole.size[0]])
    return warped(whole, stretch @ random_affine(whole.size, generator), size, fill)


def random_affine(size: Size, generator: np.random.Generator) -> np.ndarray:
    """fp64 [2, 3], edge coordinates (x, y, 1) to (x, y); turns and scales about the center."""
    height, width = size
    angle = np.deg2rad(generator.uniform(-DEGREES, DEGREES))
    move = generator.uniform(-MOVED, MOVED, 2) * (width, height)
    scale = generator.uniform(*SCALES)
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cosine, -sine], [sine, cosine]])
    center = np.array([width, height]) / 2
    return np.concatenate([linear, (center - linear @ center + move)[:, None]], axis=1)


def _resized(picture: Picture, side: int) -> Picture:
    """The picture with this shorter side, or a smaller one where it would become too long."""
    scale = min(side / min(picture.size), LONGEST * side / max(picture.size))
    height, width = (max(round(length * scale), 1) for length in picture.size)
    factors = np.array([width / picture.size[1], height / picture.size[0]] * 2)
    boxes = xyxy_px(picture.boxes.values * factors, np.array([height, width]))
    if scale > 1:
        pixels = cv2.resize(picture.pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    else:
        # Not Pillow's filter as elsewhere: it takes three times as long, and the warp blurs anyway.
        pixels = cv2.resize(picture.pixels, (width, height), interpolation=cv2.INTER_AREA)
    return Picture(pixels, boxes, picture.labels)


def _assembled(parts: Sequence[Picture], quarter: Size, fill: int) -> Picture:
    rows, columns = quarter
    pixels = np.full((2 * rows, 2 * columns, 3), fill, np.uint8)
    corners = []
    for number, part in enumerate(parts):
        top, left = rows * (number // 2), columns * (number % 2)
        pixels[top : top + part.size[0], left : left + part.size[1]] = part.pixels
        corners.append(part.boxes.values + np.array([left, top, left, top]))
    boxes = xyxy_px(np.concatenate(corners), np.array(pixels.shape[:2]))
    return Picture(pixels, boxes, np.concatenate([part.labels for part in parts]))


def warped(picture: Picture, matrix_2x3: np.ndarray, size: Size, fill: int) -> Picture:
    """Mapped by edge coordinates to a size; a turned object gets the box around its turned box."""
    height, width = size
    # OpenCV counts from the center of the first pixel, boxes from its edge.
    centers = matrix_2x3.copy()
    centers[:, 2] += matrix_2x3[:, :2] @ (0.5, 0.5) - 0.5
    pixels = cv2.warpAffine(
        picture.pixels, centers, (width, height), flags=cv2.INTER_LINEAR, borderValue=(fill,) * 3
    )
    corners = moved_corners(picture.boxes.values, matrix_2x3)
    corners = corners.clip(0, (width, height, width, height))
    kept = (corners[:, 2:] - corners[:, :2] >= LEAST_SIDE).all(axis=1)
    boxes = xyxy_px(corners[kept], np.array(size))
    return Picture(pixels, boxes, picture.labels[kept])


def moved_corners(corners_Nx4: np.ndarray, matrix_2x3: np.ndarray) -> np.ndarray:
    """fp64 [N, 4]: upright boxes around the mapped ones."""
    x, y = corners_Nx4[:, [0, 2, 2, 0]], corners_Nx4[:, [1, 1, 3, 3]]
    points_Nx4x2 = np.stack([x, y], axis=-1) @ matrix_2x3[:, :2].T + matrix_2x3[:, 2]
    return np.concatenate([points_Nx4x2.min(axis=1), points_Nx4x2.max(axis=1)], axis=1)
