"""Which class is taken for which: rows are what is there, columns what was said.

The last row is nothing there (a false detection), the last column nothing said (a missed object).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rtdetr.data.dataset import Objects
from rtdetr.scoring.found import Found
from rtdetr.scoring.pairing import UNPAIRED, pair

NOTHING = "nothing"  # name of the last row and column
MOST_CLASSES = 40  # a larger matrix is shown by its most confused pairs


def confusion(
    found: Sequence[Found], objects: Sequence[Objects], classes: int, threshold: float
) -> np.ndarray:
    """Counts `[classes + 1, classes + 1]` int64 of detections with at least a score."""
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    for detections, truth in zip(found, objects):
        kept = detections[detections.scores >= threshold]
        pairs = pair(kept, truth)
        paired = pairs.object != UNPAIRED
        _count(matrix, truth.labels[pairs.object[paired]], kept.labels[paired])
        _count(matrix, truth.labels[pairs.missed], np.full(len(pairs.missed), classes))
        _count(matrix, np.full(len(pairs.false), classes), kept.labels[pairs.false])
    return matrix


def _count(matrix: np.ndarray, there: np.ndarray, said: np.ndarray) -> None:
    """Adds 1 at each pair of row and column; a pair may come up twice."""
    np.add.at(matrix, (there, said), 1)


def most_confused(matrix: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """(there, said, times) of the largest entries off the diagonal, largest first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, wrong.shape)
    return [(int(r), int(c), int(wrong[r, c])) for r, c in zip(rows, columns) if wrong[r, c]]
