"""Boxes that know what their four numbers mean.

The format is part of the type as jax sees it (static metadata of the pytree), so that boxes of
another format are refused when a function is traced, and never become a loss a thousand times too
large. Works on numpy and on jax arrays alike.

Formats: `xywh_px` left, top, width, height; `xyxy_px` left, top, right, bottom; `cxcywh_norm`
center x, center y, width, height over the width and height of the image. Pixel boxes carry the size
of the image that they lie on, so that they cannot be normalized by another one's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax

FORMATS = ("xywh_px", "xyxy_px", "cxcywh_norm")
Array = Any  # numpy.ndarray or jax.Array


class BoxFormatError(TypeError):
    """Boxes of one format were given where another one is needed: an error of the program."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Boxes:
    """Boxes of one format; made by `xywh_px`, `xyxy_px` and `cxcywh_norm`.

    Attributes:
      values: `[..., 4]` floating point.
      size: `[..., 2]` (height, width) in px of the image of each box, whose leading axes broadcast
        against those of `values`; None for normalized boxes.
      format: one of `FORMATS`.
    """

    values: Array
    size: Array | None
    format: str = field(metadata={"static": True})

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Boxes:
        """Some of the boxes of one image (`[boxes, 4]`, `size` `[2]`)."""
        return Boxes(self.values[index], self.size, self.format)

    def corners(self) -> Boxes:
        """`xywh_px` or `xyxy_px` as `xyxy_px`."""
        if self.format == "xyxy_px":
            return self
        self.require("xywh_px", "corners")
        x, y, width, height = _columns(self.values)
        return Boxes(_joined(self.values, x, y, x + width, y + height), self.size, "xyxy_px")

    def widths(self) -> Boxes:
        """`xyxy_px` or `xywh_px` as `xywh_px`."""
        if self.format == "xywh_px":
            return self
        self.require("xyxy_px", "widths")
        left, top, right, bottom = _columns(self.values)
        values = _joined(self.values, left, top, right - left, bottom - top)
        return Boxes(values, self.size, "xywh_px")

    def normalized(self) -> Boxes:
        """Pixel boxes as `cxcywh_norm`, over the size that they carry."""
        left, top, right, bottom = _columns(self.corners().values)
        assert self.size is not None  # pixel boxes have one
        height, width = self.size[..., 0], self.size[..., 1]
        values = _joined(
            self.values,
            (left + right) / (2 * width),
            (top + bottom) / (2 * height),
            (right - left) / width,
            (bottom - top) / height,
        )
        return Boxes(values, None, "cxcywh_norm")

    def pixels(self, size: Array) -> Boxes:
        """`cxcywh_norm` as `xyxy_px` on an image of `size` `[..., 2]` (height, width)."""
        self.require("cxcywh_norm", "pixels")
        center_x, center_y, width, height = _columns(self.values)
        rows, columns = size[..., 0], size[..., 1]
        values = _joined(
            self.values,
            (center_x - width / 2) * columns,
            (center_y - height / 2) * rows,
            (center_x + width / 2) * columns,
            (center_y + height / 2) * rows,
        )
        return Boxes(values, size, "xyxy_px")

    def require(self, wanted: str, purpose: str) -> None:
        """Raises BoxFormatError where the format is another one; `purpose` names who asks."""
        if self.format != wanted:
            raise BoxFormatError(
                f"{purpose} needs boxes in the format {wanted} and was given {self.format}; "
                "convert them (Boxes.corners, normalized, pixels)"
            )


def xywh_px(values: Array, size: Array) -> Boxes:
    """Left, top, width, height in px on images of `size` `[..., 2]` (height, width)."""
    return _checked(values, size, "xywh_px")


def xyxy_px(values: Array, size: Array) -> Boxes:
    """Left, top, right, bottom in px on images of `size` `[..., 2]` (height, width)."""
    return _checked(values, size, "xyxy_px")


def cxcywh_norm(values: Array) -> Boxes:
    """Center and sides over the sides of the image."""
    return _checked(values, None, "cxcywh_norm")


def _checked(values: Array, size: Array | None, format_: str) -> Boxes:
    if values.shape[-1:] != (4,):
        raise BoxFormatError(f"boxes must have the shape [..., 4], not {values.shape}")
    if size is not None and size.shape[-1:] != (2,):
        raise BoxFormatError(f"the size of boxes must be [..., 2], not {size.shape}")
    return Boxes(values, size, format_)


def _columns(values: Array) -> tuple[Array, Array, Array, Array]:
    return values[..., 0], values[..., 1], values[..., 2], values[..., 3]


def _joined(like: Array, *columns: Array) -> Array:
    return like.__array_namespace__().stack(columns, axis=-1)
