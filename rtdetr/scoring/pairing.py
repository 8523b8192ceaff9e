"""Which detection stands for which object of an image, whatever the classes.

COCO's metrics match each class by itself, and cannot say that a dog was called a cat. Here a pair
may be of two classes: pairs of the same class come first, then greater overlap. An object and a
detection are in one pair at most, with an IoU of at least `LEAST`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rtdetr.data.dataset import Objects
from rtdetr.scoring.found import Found, overlap

LEAST = 0.5
UNPAIRED = -1


@dataclass(frozen=True)
class Pairing:
    """The pairs of one image.

    Attributes:
      single: `[objects]` bool, no crowd: only those are paired.
      object: `[detections]` int, place of the object, or `UNPAIRED`.
      excused: `[detections]` bool, unpaired but inside of a crowd of the same class.
    """

    single: np.ndarray
    object: np.ndarray
    excused: np.ndarray

    @property
    def missed(self) -> np.ndarray:
        """Places of the objects that no detection stands for."""
        return np.setdiff1d(np.flatnonzero(self.single), self.object)

    @property
    def false(self) -> np.ndarray:
        """Places of the detections that stand for no object, without the excused ones."""
        return np.flatnonzero((self.object == UNPAIRED) & ~self.excused)


def pair(found: Found, objects: Objects) -> Pairing:
    """Pairs the detections of an image with its objects."""
    shared = overlap(found.boxes.values, objects.boxes.corners().values, objects.crowd)
    same = found.labels[:, None] == objects.labels[None]
    object_of = np.full(len(found), UNPAIRED)
    free = ~objects.crowd
    detections, places = np.nonzero((shared >= LEAST) & free[None])
    rank = np.lexsort((-shared[detections, places], ~same[detections, places]))
    for detection, place in zip(detections[rank].tolist(), places[rank].tolist()):
        if free[place] and object_of[detection] == UNPAIRED:
            object_of[detection], free[place] = place, False
    in_crowd = np.any((shared >= LEAST) & same & objects.crowd[None], axis=1)
    return Pairing(~objects.crowd, object_of, in_crowd & (object_of == UNPAIRED))
