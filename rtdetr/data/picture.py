"""An image with its objects on the way to a batch: as it was decoded, and as it lies on a canvas.

`Picture` is what augmentation changes; `Canvas` is what the network sees. `painted` is the one way
from one to the other, for training, evaluation and prediction: bilinear, and antialiased where it
shrinks, which is what published weights were trained and evaluated with (Pillow, and torchvision in
transformers). OpenCV does not antialias, but agrees with Pillow to one gray level where an image
grows and takes an eighth of the time, so it does that.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from rtdetr.boxes import Boxes
from rtdetr.data.geometry import Placement, Size

LEAST_SIDE = 1.0  # px on the canvas; what is left of an object may not be smaller


@dataclass(frozen=True)
class Picture:
    """Pixels with the objects on them.

    Attributes:
      pixels: uint8 [height, width, 3] RGB.
      boxes: `xyxy_px`, values fp64 [N, 4].
      labels: int32 [N].
    """

    pixels: np.ndarray
    boxes: Boxes
    labels: np.ndarray

    @property
    def size(self) -> Size:
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True)
class Canvas:
    """What the network sees, and what it is to find there.

    Attributes:
      pixels: uint8 [height, width, 3] RGB.
      content: (height, width) of the part from the upper left corner that is no padding.
      boxes: `cxcywh_norm` over the canvas, values fp64 [N, 4].
      labels: int32 [N].
    """

    pixels: np.ndarray
    content: Size
    boxes: Boxes
    labels: np.ndarray


def placed(picture: Picture, place: Placement, fill: int) -> Canvas:
    """A picture on a canvas. Objects are cut at the border and left out where little remains."""
    cut = picture.boxes.values.copy()
    cut[:, 0::2] = cut[:, 0::2].clip(place.source.left, place.source.right)
    cut[:, 1::2] = cut[:, 1::2].clip(place.source.top, place.source.bottom)
    boxes = place.to_canvas(Boxes(cut, picture.boxes.size, "xyxy_px"))
    height, width = place.canvas
    sides = boxes.values[:, 2:] * (width, height)
    kept = (sides >= LEAST_SIDE).all(axis=1)
    pixels = painted(picture.pixels, place, fill)
    return Canvas(pixels, place.content, boxes[kept], picture.labels[kept])


def painted(pixels: np.ndarray, place: Placement, fill: int) -> np.ndarray:
    """uint8 [height, width, 3] of the canvas; `fill` is its value where no image is."""
    source, target = place.source, place.target
    part = pixels[source.top : source.bottom, source.left : source.right]
    part = resized(part, target.size)
    if target.size == place.canvas:
        return _flipped(part, place)
    canvas = np.full((*place.canvas, 3), fill, np.uint8)
    content = canvas[: place.content[0], : place.content[1]]
    content[target.top : target.bottom, target.left : target.right] = part
    if place.mirrored or place.upside_down:
        content[:] = _flipped(content, place)
    return canvas


def resized(pixels: np.ndarray, size: Size) -> np.ndarray:
    """uint8 [*size, 3], bilinear and antialiased; the edges stay edges."""
    if pixels.shape[:2] == size:
        return pixels
    height, width = size
    if height < pixels.shape[0] or width < pixels.shape[1]:
        return np.asarray(
            Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
        )
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)


def _flipped(pixels: np.ndarray, place: Placement) -> np.ndarray:
    if not place.mirrored and not place.upside_down:
        return np.ascontiguousarray(pixels)
    if place.mirrored and place.upside_down:
        return cv2.flip(pixels, -1)
    return cv2.flip(pixels, 1 if place.mirrored else 0)
