"""Which detections of a class hit an object, sorted by score, and the precision that follows.

From these alone every curve over the score, and the average precision of any resample of the
images, is computed without matching anything again.

Average precision (AP) is COCO's: the precision at 101 values of recall, each the best at that
recall or a higher one, averaged.

Shapes: D detections, G objects, T IoU thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# The ten thresholds of COCO, and its values of recall.
OVERLAPS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
UNDEFINED = float("nan")  # of a class without objects


@dataclass(frozen=True)
class ClassMatches:
    """The detections of one class on all images, highest score first, as COCO matches them.

    Attributes:
      scores: `[D]` float64.
      image: `[D]` int, place of the image.
      hit: `[T, D]` bool, matched an object that counts.
      ignored: `[T, D]` bool, neither right nor wrong: inside of a crowd.
      object_image: `[G]` int, the image of each object that counts.
    """

    scores: np.ndarray
    image: np.ndarray
    hit: np.ndarray
    ignored: np.ndarray
    object_image: np.ndarray

    @property
    def objects(self) -> int:
        return len(self.object_image)


def average_precisions(matches: ClassMatches, weight: np.ndarray) -> np.ndarray:
    """AP at each of the T thresholds, where images count as often as `weight` says.

    Args:
      weight: `[..., images]`, non-negative integers.

    Returns:
      `[..., T]` float64; `UNDEFINED` where no object counts.
    """
    objects = weight[..., matches.object_image].sum(axis=-1)
    of_detection = weight[..., matches.image].astype(np.float64)
    columns = [
        _average_precision(of_detection, hit, ignored, objects)
        for hit, ignored in zip(matches.hit, matches.ignored)
    ]
    return np.where(objects[..., None] > 0, np.stack(columns, axis=-1), UNDEFINED)


def _average_precision(
    weight: np.ndarray, hit: np.ndarray, ignored: np.ndarray, objects: np.ndarray
) -> np.ndarray:
    """Of one threshold, `[...]`. Between two hits precision only falls, so hits are enough."""
    if not hit.any():
        return np.zeros(weight.shape[:-1])
    counted = np.cumsum(np.where(ignored, 0.0, weight), axis=-1)[..., hit]
    right = np.cumsum(weight[..., hit], axis=-1)
    precision = right / np.maximum(counted, 1.0)
    best = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    recall = right / np.maximum(objects, 1)[..., None]
    flat_recall = recall.reshape(-1, recall.shape[-1])
    flat_best = best.reshape(flat_recall.shape)
    means = [_at_recalls(r, p).mean() for r, p in zip(flat_recall, flat_best)]
    return np.array(means).reshape(weight.shape[:-1])


def _at_recalls(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Precision at `RECALLS`; 0 at those that are never reached."""
    place = np.searchsorted(recall, RECALLS, side="left")
    return np.append(precision, 0.0)[np.minimum(place, len(precision))]
