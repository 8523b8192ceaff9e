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
        np.add.at(matrix, (truth.labels[pairs.object[paired]], kept.labels[paired]), 1)
        np.add.at(matrix, (truth.labels[pairs.missed], classes), 1)
        np.add.at(matrix, (classes, kept.labels[pairs.false]), 1)
    return matrix


def most_confused(matrix: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """(there, said, times) of the largest entries off the diagonal, largest first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    rows, columns = np.unravel_index(order, wrong.shape)
    return [(int(r), int(c), int(wrong[r, c])) for r, c in zip(rows, columns) if wrong[r, c]]
