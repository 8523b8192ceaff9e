"""Evaluation of an RT-DETR state on a split: COCO's metrics, tables and pictures.

Every host detects on its share of the images; the detections are gathered, and all hosts score them
alike. The average of the weights is scored, and by `_raw` the weights of the last update: nothing
is chosen by the result. Detections are never cut off by a score before they are scored; only
`F1`, confusions and pictures use the threshold with the greatest mean F1 over classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rtdetr.config import Config
from rtdetr.data.dataset import ClassTable, Dataset, Objects
from rtdetr.data.decode import decode
from rtdetr.drawing import captions, compared
from rtdetr.inference import Weights, best_weights, detect_batch, in_image_pixels, raw_weights
from rtdetr.scoring import tables
from rtdetr.scoring.bootstrap import interval
from rtdetr.scoring.charts import confusion_picture, curves_over_score
from rtdetr.scoring.coco_ap import CocoScores, score
from rtdetr.scoring.confidence import THRESHOLDS, Confidence, by_confidence
from rtdetr.scoring.confusion import MOST_CLASSES, NOTHING, confusion
from rtdetr.scoring.found import Found
from rtdetr.scoring.worst import Faults, worst_images
from training import distributed
from training.mesh import Layout
from training.over_batches import over_batches
from training.source import Source
from training.verdict import Evaluation

LISTED = 50  # worst images in the table


@dataclass(frozen=True)
class Scored:
    """Detections of all images of a split against their objects."""

    found: list[Found]
    objects: list[Objects]
    coco: CocoScores
    matched_iou: float | None
    nonfinite: int

    @property
    def metrics(self) -> dict[str, float]:
        further = {} if self.matched_iou is None else {"matched_iou": self.matched_iou}
        return self.coco.metrics | further | {"nonfinite_detections": float(self.nonfinite)}


def evaluate(
    config: Config, classes: ClassTable, state: Any, source: Source, layout: Layout
) -> Evaluation:
    """Metrics, pictures and tables on a source; see `training.task.Task.evaluate`."""
    dataset, scoring = dataset_of(source), config.scoring
    scored = scored_with(config, classes, best_weights(state), source, layout)
    confidence = by_confidence(scored.coco.matches)
    metrics = scored.metrics | confidence_metrics(confidence)
    if scoring.bootstrap:
        limits = interval(scored.coco.matches, len(source), scoring.bootstrap)
        metrics |= dict(zip(("AP_low", "AP_high"), limits)) if limits else {}
    if scoring.raw:
        raw = scored
        if state.ema is not None:
            raw = scored_with(config, classes, raw_weights(state), source, layout)
        metrics |= {f"{name}_raw": value for name, value in raw.metrics.items()}
    threshold = float(THRESHOLDS[confidence.best])
    matrix = confusion(scored.found, scored.objects, len(classes), threshold)
    count = max(scoring.pictures, LISTED)
    worst = worst_images(scored.found, scored.objects, threshold, count)
    written = {
        "classes": tables.by_class(classes, scored.coco, confidence),
        "confidence": tables.by_threshold(confidence),
        "confusion": tables.of_confusion(classes, matrix, threshold),
        "worst_images": tables.of_faults(worst, dataset.name, threshold),
    }
    images = {}
    if distributed.is_main():
        images = score_pictures(classes, confidence, matrix)
        images |= worst_pictures(dataset, scored, worst[: scoring.pictures], threshold)
    return Evaluation(metrics, images, written)


def dataset_of(source: Any) -> Dataset:
    """The data set behind a source, or behind the first examples of one."""
    while not hasattr(source, "dataset"):
        source = source.source
    return source.dataset


def scored_with(
    config: Config, classes: ClassTable, weights: Weights, source: Source, layout: Layout
) -> Scored:
    """Detects on all images of a source and scores. All hosts call it alike."""
    swept = over_batches(
        detect_batch(config),
        (weights.params, weights.statistics),
        source,
        config.evaluation.batch_size,
        layout,
        config.loader.workers,
    )
    dataset, data = dataset_of(source), config.data
    sizes = [dataset.size(index) for index in range(len(source))]
    found, nonfinite = in_image_pixels(swept.rows, sizes, data.size, data.resize)
    objects = [dataset.objects(index) for index in range(len(source))]
    coco = score(found, objects, len(classes), config.scoring.max_detections)
    shared, count = swept.sums
    return Scored(found, objects, coco, float(shared / count) if count else None, nonfinite)


def confidence_metrics(confidence: Confidence) -> dict[str, float]:
    """`threshold` with the greatest mean F1, and `F1`, `precision`, `recall` there."""
    best = confidence.best
    curves = {"F1": confidence.f1, "precision": confidence.precision, "recall": confidence.recall}
    means = {name: float(confidence.mean(curve)[best]) for name, curve in curves.items()}
    return means | {"threshold": float(THRESHOLDS[best])} if confidence.defined.any() else {}


def score_pictures(
    classes: ClassTable, confidence: Confidence, matrix: np.ndarray
) -> dict[str, np.ndarray]:
    """Curves over the score, and the matrix of confusions where it can be read."""
    curves = {"precision": confidence.precision, "recall": confidence.recall, "F1": confidence.f1}
    means = {name: confidence.mean(curve) for name, curve in curves.items()}
    title = "Mean over classes, IoU 0.5"
    images = {"confidence": curves_over_score(THRESHOLDS, means, confidence.best, title)}
    if len(classes) <= MOST_CLASSES:
        images["confusion"] = confusion_picture(matrix, [*classes.names, NOTHING])
    return images


def worst_pictures(
    dataset: Dataset, scored: Scored, worst: Sequence[Faults], threshold: float
) -> dict[str, np.ndarray]:
    """Truth beside prediction of images, worst first."""
    names, images = dataset.classes.names, {}
    for rank, faults in enumerate(worst):
        name, objects = dataset.name(faults.image), scored.objects[faults.image]
        found = scored.found[faults.image]
        found = found[found.scores >= threshold]
        images[f"worst_{rank}"] = compared(
            decode(dataset.encoded(faults.image), name),
            (objects.boxes, objects.labels, captions(objects.labels, names, crowd=objects.crowd)),
            (found.boxes, found.labels, captions(found.labels, names, found.scores)),
            f"{name}: {faults.sentence} (score from {threshold:.2f})",
        )
    return images
