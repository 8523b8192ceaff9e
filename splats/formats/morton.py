"""Morton (Z) order: sorting points along a space-filling curve, so that neighbors are adjacent."""

from __future__ import annotations

import numpy as np

_BITS = 21  # bits per axis; three of them fit 63 bits


def morton_order(points: np.ndarray) -> np.ndarray:
    """Indices [N] that sort `points` [N,3] by the Morton code of their place in the bounding box.

    x is the least significant axis. Equal codes keep their order.
    """
    if not len(points):
        return np.zeros(0, np.int64)
    points = np.asarray(points, np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    span = np.where(high > low, high - low, 1)
    # The largest coordinate would fall into a cell beyond the last, which has a bit too many.
    cells = np.minimum((points - low) / span * 2**_BITS, 2**_BITS - 1).astype(np.uint64)
    code = np.zeros(len(points), np.uint64)
    for axis in range(3):
        code |= _spread(cells[:, axis]) << np.uint64(axis)
    return np.argsort(code, kind="stable")


def _spread(value: np.ndarray) -> np.ndarray:
    """Two zero bits after every bit of 21-bit values."""
    steps = (
        (32, 0x1F00000000FFFF),
        (16, 0x1F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    )
    for shift, mask in steps:
        value = (value | (value << np.uint64(shift))) & np.uint64(mask)
    return value
