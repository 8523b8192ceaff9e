"""COCO's metrics of detection, by pycocotools (Lin et al. 2014; cocodataset.org, evaluation).

AP is averaged over IoU 0.50 to 0.95 and over the classes that have objects. Small, medium and large
objects are those with an area below 32², below 96² and above, in px². AR is the share of objects
found when each class may have so many detections an image (`AR1`, `AR10`, `AR100`). Detections
inside of a crowd of their class are ignored.

A number that is not defined (no object of a class, or of a size) is NaN in arrays and left out of
the metrics.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rtdetr.data.dataset import Objects
from rtdetr.scoring.found import Found
from rtdetr.scoring.matches import OVERLAPS, UNDEFINED, ClassMatches

SIZES = ("", "_small", "_medium", "_large")  # as pycocotools orders them
_FIRST_ID = 1  # pycocotools takes the id 0 for "not matched"


@dataclass(frozen=True)
class CocoScores:
    """What pycocotools found.

    Attributes:
      metrics: `AP`, `AP50`, `AP75`, `AP_small` … `AP_large`, `AR1`, `AR10`, `AR100` (the last one
        by the number of detections that was asked for), `AR_small` … `AR_large`.
      ap, ap50, ar: `[classes]` float64.
      matches: of each class.
    """

    metrics: dict[str, float]
    ap: np.ndarray
    ap50: np.ndarray
    ar: np.ndarray
    matches: list[ClassMatches]


def score(
    found: Sequence[Found], objects: Sequence[Objects], classes: int, max_detections: int = 100
) -> CocoScores:
    """Scores the detections of each image against its objects.

    Args:
      found, objects: of the same images.
      max_detections: of a class on an image that count; the others are cut off (COCO: 100).
    """
    limits = sorted({min(1, max_detections), min(10, max_detections), max_detections})
    evaluation = _evaluated(found, objects, classes, limits)
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    metrics = {f"AP{size}": _mean(precision[..., i, -1]) for i, size in enumerate(SIZES)}
    metrics |= {"AP50": _mean(precision[0, ..., 0, -1]), "AP75": _mean(precision[5, ..., 0, -1])}
    metrics |= {f"AR{limit}": _mean(recall[..., 0, i]) for i, limit in enumerate(limits)}
    metrics |= {f"AR{SIZES[i]}": _mean(recall[..., i, -1]) for i in (1, 2, 3)}
    return CocoScores(
        {name: value for name, value in metrics.items() if np.isfinite(value)},
        np.array([_mean(precision[:, :, k, 0, -1]) for k in range(classes)]),
        np.array([_mean(precision[0, :, k, 0, -1]) for k in range(classes)]),
        np.array([_mean(recall[:, k, 0, -1]) for k in range(classes)]),
        [_matches_of(evaluation, k, len(found), max_detections) for k in range(classes)],
    )


def _evaluated(
    found: Sequence[Found], objects: Sequence[Objects], classes: int, limits: Sequence[int]
) -> Any:
    """pycocotools' evaluation, without what it prints."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def table(annotations: list[dict[str, Any]]) -> Any:
        filled: Any = COCO()
        filled.dataset = {
            "images": [{"id": i} for i in range(len(found))],
            "categories": [{"id": k} for k in range(classes)],
            "annotations": annotations,
        }
        filled.createIndex()
        return filled

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation: Any = COCOeval(table(_truth(objects)), table(_answer(found)), "bbox")
        evaluation.params.imgIds = list(range(len(found)))
        evaluation.params.catIds = list(range(classes))
        evaluation.params.maxDets = list(limits)
        evaluation.params.iouThrs = OVERLAPS
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _truth(objects: Sequence[Objects]) -> list[dict[str, Any]]:
    rows = [
        {"image_id": i, "category_id": label, "bbox": box, "area": area, "iscrowd": int(crowd)}
        for i, one in enumerate(objects)
        for label, box, area, crowd in zip(
            one.labels.tolist(),
            one.boxes.widths().values.astype(np.float64).tolist(),
            one.areas.tolist(),
            one.crowd.tolist(),
        )
    ]
    return [{**row, "id": i} for i, row in enumerate(rows, _FIRST_ID)]


def _answer(found: Sequence[Found]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for i, one in enumerate(found):
        boxes = one.boxes.widths().values.astype(np.float64)
        areas = (boxes[:, 2] * boxes[:, 3]).tolist()
        columns = zip(one.labels.tolist(), boxes.tolist(), areas, one.scores.tolist())
        rows += [
            {"image_id": i, "category_id": label, "bbox": box, "area": area, "score": score}
            for label, box, area, score in columns
        ]
    return [{**row, "id": i, "iscrowd": 0} for i, row in enumerate(rows, _FIRST_ID)]


def _mean(values: np.ndarray) -> float:
    """Of the defined ones; pycocotools writes -1 where there is no object."""
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else UNDEFINED


def _matches_of(evaluation: Any, label: int, images: int, most: int) -> ClassMatches:
    """What pycocotools matched of a class, over objects of all sizes."""
    start = label * len(SIZES) * images
    rows = [(i, row) for i, row in enumerate(evaluation.evalImgs[start : start + images]) if row]
    thresholds = len(OVERLAPS)
    empty = np.zeros((thresholds, 0), bool)
    scores = np.concatenate([np.zeros(0), *(row["dtScores"][:most] for _, row in rows)])
    image = np.repeat([i for i, _ in rows], [len(row["dtScores"][:most]) for _, row in rows])
    matched = [np.asarray(row["dtMatches"])[:, :most] > 0 for _, row in rows]
    ignored = [np.asarray(row["dtIgnore"], bool)[:, :most] for _, row in rows]
    # As pycocotools sorts: detections of the same score stay in the order of their images.
    order = np.argsort(-scores, kind="mergesort")
    all_ignored = np.concatenate([empty, *ignored], axis=1)[:, order]
    hit = np.concatenate([empty, *matched], axis=1)[:, order] & ~all_ignored
    counting = [np.sum(np.asarray(row["gtIgnore"]) == 0) for _, row in rows]
    object_image = np.repeat([i for i, _ in rows], counting)
    return ClassMatches(
        scores[order], image[order].astype(int), hit, all_ignored, object_image.astype(int)
    )
