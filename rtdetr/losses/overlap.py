"""Overlap of boxes: intersection over union (IoU) and its generalized form (GIoU).

GIoU (Rezatofighi et al. 2019) takes from the IoU the share of the smallest enclosing box that
neither box covers, so that boxes that do not meet still attract each other. It is in (-1, 1].

Boxes are `cxcywh_norm`, computed in float32. Leading axes broadcast against each other: `[N]`
against `[N]` is paired, `[N, 1]` against `[1, M]` is pairwise.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rtdetr.boxes import Boxes

# A pixel of a canvas of 8192 x 8192 has the area 1.5e-8. Below this a quotient would only amplify
# rounding, and its derivative, which divides by the square, would overflow float32.
LEAST_AREA = 1e-12


def iou(a: Boxes, b: Boxes) -> jax.Array:
    """IoU `[...]` fp32 in [0, 1]; 0 where both boxes have no area.

    Raises:
      BoxFormatError: boxes that are not normalized.
    """
    intersection, union, _ = _areas(a, b)
    return intersection / jnp.maximum(union, LEAST_AREA)


def iou_and_giou(a: Boxes, b: Boxes) -> tuple[jax.Array, jax.Array]:
    """IoU and GIoU, each `[...]` fp32.

    Raises:
      BoxFormatError: boxes that are not normalized.
    """
    intersection, union, hull = _areas(a, b)
    shared = intersection / jnp.maximum(union, LEAST_AREA)
    return shared, shared - (hull - union) / jnp.maximum(hull, LEAST_AREA)


def pairwise(a: Boxes, b: Boxes) -> tuple[Boxes, Boxes]:
    """`[..., N, 4]` and `[..., M, 4]` in the shapes `[..., N, 1, 4]` and `[..., 1, M, 4]`."""
    return (
        Boxes(a.values[..., :, None, :], a.size, a.format),
        Boxes(b.values[..., None, :, :], b.size, b.format),
    )


def _areas(a: Boxes, b: Boxes) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Areas of the intersection, the union and the smallest box around both."""
    a_left, a_top, a_right, a_bottom = _edges(a)
    b_left, b_top, b_right, b_bottom = _edges(b)
    width = jnp.minimum(a_right, b_right) - jnp.maximum(a_left, b_left)
    height = jnp.minimum(a_bottom, b_bottom) - jnp.maximum(a_top, b_top)
    intersection = jnp.maximum(width, 0.0) * jnp.maximum(height, 0.0)
    a_area = (a_right - a_left) * (a_bottom - a_top)
    b_area = (b_right - b_left) * (b_bottom - b_top)
    hull_width = jnp.maximum(a_right, b_right) - jnp.minimum(a_left, b_left)
    hull_height = jnp.maximum(a_bottom, b_bottom) - jnp.minimum(a_top, b_top)
    return intersection, a_area + b_area - intersection, hull_width * hull_height


def _edges(boxes: Boxes) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    boxes.require("cxcywh_norm", "the overlap")
    values = boxes.values.astype(jnp.float32)
    x, y, width, height = (values[..., i] for i in range(4))
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2
