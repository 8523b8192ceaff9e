"""How an image lies on a canvas, for its pixels and its boxes alike.

A *window* is the part of the image's plane that is shown; it may reach beyond the image. What it
shows is scaled to the *content* of the canvas, which is all of it ("squash") or its upper left part
("letterbox", aspect kept). The part of the image inside of the window, the *source*, lands on whole
pixels of the canvas, the *target*; boxes follow that very map, so they are exact whatever was
rounded.

Coordinates run over edges: the pixel in column x covers [x, x + 1). Resizing maps the edges of the
source to those of the target (half-pixel centers), as OpenCV, Pillow and torchvision do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rtdetr.boxes import Boxes, xyxy_px

Size = tuple[int, int]  # (height, width) in px


class Window(NamedTuple):
    """A rectangle in whole px: [left, right) × [top, bottom)."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> Size:
        return self.bottom - self.top, self.right - self.left

    def clipped(self, size: Size) -> Window:
        """The part of it inside of an image."""
        height, width = size
        return Window(
            max(self.left, 0), max(self.top, 0), min(self.right, width), min(self.bottom, height)
        )


def whole(size: Size) -> Window:
    """The window that shows an image and nothing else."""
    return Window(0, 0, size[1], size[0])


@dataclass(frozen=True)
class Placement:
    """Made by `placement`; see the module docstring.

    Attributes:
      image, canvas: sizes.
      content: size of the part of the canvas, from its upper left corner, that shows the window.
      source: in the image.
      target: on the canvas, before mirroring.
      mirrored, upside_down: the content is flipped left to right, top to bottom.
    """

    image: Size
    canvas: Size
    content: Size
    source: Window
    target: Window
    mirrored: bool = False
    upside_down: bool = False

    def to_canvas(self, boxes: Boxes) -> Boxes:
        """Pixel boxes `[N, 4]` on the image as `cxcywh_norm` over the canvas, not clipped."""
        corners = boxes.corners().values
        scale, offset = self._map(corners.dtype)
        moved = _ordered(corners * scale + offset)
        return xyxy_px(moved, np.asarray(self.canvas, corners.dtype)).normalized()

    def to_image(self, boxes: Boxes) -> Boxes:
        """`cxcywh_norm` `[N, 4]` over the canvas as `xyxy_px`, clipped to the image."""
        on_canvas = boxes.pixels(np.asarray(self.canvas, boxes.values.dtype)).values
        scale, offset = self._map(on_canvas.dtype)
        height, width = self.image
        limits = np.array([width, height, width, height], on_canvas.dtype)
        moved = np.clip(_ordered((on_canvas - offset) / scale), 0, limits)
        return xyxy_px(moved, np.asarray(self.image))

    def _map(self, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """(scale, offset), each `[4]`, of corners on the image to corners on the canvas."""
        (left, top, right, bottom), target = self.source, self.target
        x = (target.right - target.left) / (right - left)
        y = (target.bottom - target.top) / (bottom - top)
        dx, dy = target.left - left * x, target.top - top * y
        if self.mirrored:
            x, dx = -x, self.content[1] - dx
        if self.upside_down:
            y, dy = -y, self.content[0] - dy
        return np.array([x, y, x, y], dtype), np.array([dx, dy, dx, dy], dtype)


def placement(
    image_size: Size,
    canvas_size: Size,
    resize: str,
    window: Window | None = None,
    *,
    mirrored: bool = False,
    upside_down: bool = False,
) -> Placement:
    """Where an image comes to lie.

    Args:
      image_size, canvas_size: (height, width).
      resize: "squash" or "letterbox".
      window: what is shown; None is the whole image. Must share a pixel with the image.
      mirrored, upside_down: flips of what is shown.
    """
    window = window or whole(image_size)
    source = window.clipped(image_size)
    rows, columns = window.size
    content = content_size(window.size, canvas_size, resize)
    y, x = content[0] / rows, content[1] / columns
    top, bottom = _span(source.top - window.top, source.bottom - window.top, y, content[0])
    left, right = _span(source.left - window.left, source.right - window.left, x, content[1])
    target = Window(left, top, right, bottom)
    return Placement(image_size, canvas_size, content, source, target, mirrored, upside_down)


def content_size(size: Size, canvas: Size, resize: str) -> Size:
    """How large something comes to lie: the canvas, or the largest size of its own aspect."""
    if resize == "squash":
        return canvas
    scale = min(canvas[0] / size[0], canvas[1] / size[1])
    height, width = (max(round(side * scale), 1) for side in size)
    return min(height, canvas[0]), min(width, canvas[1])


def _span(start: int, stop: int, scale: float, most: int) -> tuple[int, int]:
    """[start, stop) scaled to whole px inside of [0, most), one px at least."""
    first = min(round(start * scale), most - 1)
    return first, max(round(stop * scale), first + 1)


def _ordered(corners: np.ndarray) -> np.ndarray:
    """Corners with the smaller coordinate first: a flip exchanges them."""
    first, second = corners[..., :2], corners[..., 2:]
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=-1)
