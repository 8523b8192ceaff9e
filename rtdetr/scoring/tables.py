"""Scores as tables of the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rtdetr.data.dataset import ClassTable
from rtdetr.scoring.coco_ap import CocoScores
from rtdetr.scoring.confidence import THRESHOLDS, Confidence, best_place
from rtdetr.scoring.confusion import MOST_CLASSES, NOTHING, most_confused
from rtdetr.scoring.worst import Faults
from training.verdict import Table

NO_OBJECTS = "no objects"  # in place of the AP of a class that does not occur
MOST_PAIRS = 40


def by_class(classes: ClassTable, coco: CocoScores, confidence: Confidence) -> Table:
    """One row for each class; precision, recall and F1 at its own best threshold."""
    rows = []
    for k, name in enumerate(classes.names):
        objects = coco.matches[k].objects
        if not objects:
            rows.append((name, 0, NO_OBJECTS, *[""] * 6))
            continue
        best = best_place(confidence.f1[k])
        curves = (confidence.precision, confidence.recall, confidence.f1)
        values = [coco.ap[k], coco.ap50[k], coco.ar[k], *(curve[k, best] for curve in curves)]
        rows.append((name, objects, *map(_rounded, values), _rounded(THRESHOLDS[best])))
    columns = ("class", "objects", "AP", "AP50", "AR", "precision", "recall", "F1", "threshold")
    return Table("Scores by class (precision to threshold: where its F1 is best)", columns, rows)


def by_threshold(confidence: Confidence) -> Table:
    """Means over classes at every fifth threshold."""
    curves = [
        confidence.mean(curve) for curve in (confidence.precision, confidence.recall, confidence.f1)
    ]
    rows = [
        (_rounded(THRESHOLDS[i]), *(_rounded(curve[i]) for curve in curves))
        for i in range(0, len(THRESHOLDS), 5)
    ]
    title = "Precision, recall and F1 against the score (IoU 0.5, mean over classes)"
    return Table(title, ("score", "precision", "recall", "F1"), rows)


def of_confusion(classes: ClassTable, matrix: np.ndarray, threshold: float) -> Table:
    """The whole matrix, or of many classes the most confused pairs."""
    names = [*classes.names, NOTHING]
    said = f"score from {threshold:.2f}, IoU from 0.5"
    if len(classes) <= MOST_CLASSES:
        rows = [(name, *row) for name, row in zip(names, matrix.tolist())]
        title = f"Confusions: rows are what is there, columns what was said ({said})"
        return Table(title, ("there", *names), rows)
    pairs = [(names[i], names[j], n) for i, j, n in most_confused(matrix, MOST_PAIRS)]
    return Table(f"The most confused pairs ({said})", ("there", "said", "times"), pairs)


def of_faults(worst: Sequence[Faults], name: Callable[[int], str], threshold: float) -> Table:
    """The images on which most went wrong."""
    rows = [(name(one.image), one.missed, one.mistaken, one.false) for one in worst]
    title = f"Images on which most went wrong (score from {threshold:.2f})"
    return Table(title, ("image", "missed", "mistaken", "false"), rows)


def _rounded(value: float) -> float:
    return round(float(value), 4)
