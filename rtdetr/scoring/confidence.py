"""Precision, recall and F1 of what is kept above a score, at IoU 0.5.

Precision is the right share of what is kept, and 1 where nothing is; recall the share of the
objects that is found; F1 their harmonic mean, 2 right / (kept + objects). Classes without objects
have none (NaN) and do not enter the means over classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rtdetr.scoring.matches import UNDEFINED, ClassMatches

THRESHOLDS = np.linspace(0.0, 1.0, 101)
_AS_GOOD = 1e-9  # F1 that differs by less is the same


@dataclass(frozen=True)
class Confidence:
    """Curves over `THRESHOLDS`, each `[classes, 101]`; see the module docstring."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    @property
    def defined(self) -> np.ndarray:
        """`[classes]` bool, classes with objects."""
        return ~np.isnan(self.f1[:, 0])

    def mean(self, curve: np.ndarray) -> np.ndarray:
        """A curve averaged over the classes with objects, `[101]`; zeros where none has any."""
        if not self.defined.any():
            return np.zeros(len(THRESHOLDS))
        return curve[self.defined].mean(axis=0)

    @property
    def best(self) -> int:
        """Place in `THRESHOLDS` of the greatest mean F1."""
        return best_place(self.mean(self.f1))


def best_place(f1: np.ndarray) -> int:
    """The middle one of the places with the greatest F1: no score is near to its threshold."""
    places = np.flatnonzero(f1 >= f1.max() - _AS_GOOD)
    return int(places[len(places) // 2])


def by_confidence(matches: Sequence[ClassMatches]) -> Confidence:
    """The curves of every class."""
    curves = [_of_class(one) for one in matches]
    return Confidence(*(np.stack(columns) for columns in zip(*curves)))


def _of_class(matches: ClassMatches) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not matches.objects:
        nothing = np.full(len(THRESHOLDS), UNDEFINED)
        return nothing, nothing, nothing
    counts = ~matches.ignored[0]
    # Best first: what is kept is a beginning of the list.
    kept = np.searchsorted(-matches.scores, -THRESHOLDS, side="right")
    said = np.concatenate([[0], np.cumsum(counts)])[kept]
    right = np.concatenate([[0], np.cumsum(matches.hit[0])])[kept]
    precision = np.divide(right, said, out=np.ones(len(THRESHOLDS)), where=said > 0)
    return precision, right / matches.objects, 2 * right / (said + matches.objects)
