"""Is the AP of a written graph that of the network? Both are scored on the evaluation split.

A runtime that computes one operation otherwise (fp16, a fused sampling kernel) can agree on one
image and lose all accuracy on a data set; the only proof is to score again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rtdetr.boxes import xyxy_px
from rtdetr.config import Config
from rtdetr.data.dataset import Dataset
from rtdetr.data.decode import decode
from rtdetr.data.prepared import open_split
from rtdetr.graphs.check import canvas_of
from rtdetr.scoring.coco_ap import CocoScores, score
from rtdetr.scoring.found import Found
from training.errors import InputError

# Canvases uint8 and sizes int32 of one batch to its scores, labels and boxes.
Answer = Callable[..., Any]
LARGEST_AP = 1e-4  # difference of AP, as a fraction


def rescored(answer: Answer, graph: Answer, config: Config, batch: int, what: str) -> str:
    """Both AP, as a part of a sentence.

    Args:
      answer: of the written file, for batches of `batch` images.
      graph: what the file was made of.
      what: the file, for the message.

    Raises:
      InputError: the data are not there, or the two differ by more than `LARGEST_AP`.
    """
    dataset = open_split(config.data.folder, config.data.eval_split)
    compiled = jax.jit(graph)
    wanted = average_precision(compiled, dataset, config, batch)
    found = average_precision(answer, dataset, config, batch)
    ours, theirs = (scores.metrics.get("AP", 0.0) for scores in (wanted, found))
    if not abs(ours - theirs) <= LARGEST_AP:
        raise InputError(
            f"{what} has AP {theirs:.4f} on {len(dataset)} images of {config.data.eval_split} and "
            f"the network {ours:.4f}; do not use it, and report the versions of jax and onnx"
        )
    split = config.data.eval_split
    return f"AP {theirs:.4f} on {len(dataset)} images of {split}, the network's {ours:.4f}"


def average_precision(answer: Answer, dataset: Dataset, config: Config, batch: int) -> CocoScores:
    """COCO's metrics of the answers on every image of a data set."""
    found: list[Found] = []
    for start in range(0, len(dataset), batch):
        indices = range(start, min(start + batch, len(dataset)))
        # The last batch is filled up: a graph may know one length only.
        filled = [*indices, *[indices[-1]] * (batch - len(indices))]
        pixels = [decode(dataset.encoded(index), dataset.name(index)) for index in filled]
        images = np.stack([canvas_of(one, config) for one in pixels])
        sizes = np.array([dataset.size(index) for index in filled], np.int32)
        parts = [np.asarray(part) for part in answer(images, sizes)]
        for place, _ in enumerate(indices):
            scores, labels, boxes = (part[place] for part in parts)
            found.append(_finite(Found(xyxy_px(boxes, sizes[place]), labels, scores)))
    objects = [dataset.objects(index) for index in range(len(dataset))]
    return score(found, objects, len(dataset.classes), config.scoring.max_detections)


def _finite(found: Found) -> Found:
    # As in evaluation; pycocotools would match a box that is no number with every object.
    return found[np.isfinite(found.scores) & np.isfinite(found.boxes.values).all(axis=-1)]
