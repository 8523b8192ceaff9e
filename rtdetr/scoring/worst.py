"""The images on which most went wrong, and what.

An object that was missed or taken for another class counts 1; a false detection counts its score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rtdetr.data.dataset import Objects
from rtdetr.scoring.found import Found
from rtdetr.scoring.pairing import UNPAIRED, pair


@dataclass(frozen=True)
class Faults:
    """What went wrong on the image at a place: numbers of objects and of detections."""

    image: int
    missed: int
    mistaken: int
    false: int
    badness: float

    @property
    def sentence(self) -> str:
        return f"{self.missed} missed, {self.mistaken} mistaken, {self.false} false"


def worst_images(
    found: Sequence[Found], objects: Sequence[Objects], threshold: float, count: int
) -> list[Faults]:
    """The worst images, worst first, without those where nothing is wrong.

    Args:
      threshold: the score from which on a detection counts.
    """
    faults = [_faults(i, f, o, threshold) for i, (f, o) in enumerate(zip(found, objects))]
    ranked = sorted(faults, key=lambda one: (-one.badness, one.image))
    return [one for one in ranked[:count] if one.badness > 0]


def _faults(image: int, found: Found, objects: Objects, threshold: float) -> Faults:
    kept = found[found.scores >= threshold]
    pairs = pair(kept, objects)
    paired = pairs.object != UNPAIRED
    mistaken = int((kept.labels[paired] != objects.labels[pairs.object[paired]]).sum())
    missed, false = len(pairs.missed), len(pairs.false)
    badness = missed + mistaken + float(kept.scores[pairs.false].sum())
    return Faults(image, missed, mistaken, false, badness)
