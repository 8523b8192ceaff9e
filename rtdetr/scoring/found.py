"""What was found on one image, in its own pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rtdetr.boxes import Boxes, xyxy_px


@dataclass(frozen=True)
class Found:
    """The detections of one image.

    Attributes:
      boxes: `xyxy_px`, values `[N, 4]` floating point.
      labels: `[N]` int.
      scores: `[N]` floating point.
    """

    boxes: Boxes
    labels: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: np.ndarray) -> Found:
        """Some of them, by a mask or by places."""
        return Found(self.boxes[index], self.labels[index], self.scores[index])


def nothing(size: tuple[int, int]) -> Found:
    """No detection on an image of `size` (height, width)."""
    boxes = xyxy_px(np.zeros((0, 4)), np.array(size))
    return Found(boxes, np.zeros(0, np.int32), np.zeros(0))


def overlap(a: np.ndarray, b: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
    """Intersection over union of every pair, `[N, M]` float64; 0 for boxes without an area.

    Args:
      a, b: `[N, 4]` and `[M, 4]` left, top, right, bottom.
      inside: `[M]` bool, crowds: there the share of `a` that lies inside of `b`.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=-1)
    area_a, area_b = (np.prod(x[:, 2:] - x[:, :2], axis=-1) for x in (a, b))
    whole = area_a[:, None] + area_b[None] - shared
    if inside is not None:
        whole = np.where(inside[None], area_a[:, None], whole)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
