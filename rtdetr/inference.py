"""From images to detections in their own pixels: the one path of evaluation and `predict`.

An image is placed on the canvas of the config, as the examples of evaluation are; the network finds
the best pairs of query and class; boxes go back by the very placement. Numbers of queries and of
decoder layers may be others than in training (`ScoringConfig`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rtdetr.boxes import Boxes, cxcywh_norm, xyxy_px
from rtdetr.config import Config, LossConfig, ModelConfig, ScoringConfig
from rtdetr.data.augment import unchanged
from rtdetr.data.geometry import Size, placement
from rtdetr.data.picture import Picture
from rtdetr.losses.assignment import FREE, assign
from rtdetr.losses.matching_cost import matching_cost
from rtdetr.losses.overlap import iou
from rtdetr.model.detector import detect
from rtdetr.pictures_in import Frame
from rtdetr.postprocess import top_detections
from rtdetr.scoring.found import Found
from rtdetr.targets import NO_OBJECT, Predictions, Targets
from training.loss import Batch, Total
from training.mesh import Layout, batch_shards
from training.over_batches import BatchResult
from training.reading import stack_examples
from training.source import Example

PyTree = Any


@dataclass(frozen=True)
class Weights:
    """What the network computes with."""

    params: PyTree
    statistics: PyTree


def raw_weights(state: Any) -> Weights:
    """Those of the last update."""
    return Weights(state.params, state.model_state)


def best_weights(state: Any) -> Weights:
    """The average of a `TrainState`, or the last ones where the run keeps none."""
    if state.ema is None:
        return raw_weights(state)
    return Weights(state.ema["params"], state.ema["statistics"])


@dataclass(frozen=True)
class DetectBatch:
    """The detections of a batch; compiled once for each configuration.

    Called with parameters, statistics and a batch (`image`, `content`). Where the batch has
    `boxes` and `labels` too, `sums` is the IoU of the queries that training would match.
    """

    model: ModelConfig
    loss: LossConfig
    scoring: ScoringConfig
    padded: bool

    def __call__(self, params: PyTree, statistics: PyTree, batch: Batch) -> BatchResult:
        output, _ = detect(
            self.model,
            params,
            statistics,
            batch["image"],
            batch["content"] if self.padded else None,
            train=False,
            layers=self.scoring.layers or None,
            queries=self.scoring.queries or None,
        )
        last = jax.tree.map(lambda x: x[-1], output.decoder)
        found = top_detections(last.logits, last.boxes, self.scoring.detections)
        rows = {"scores": found.scores, "labels": found.labels, "boxes": found.boxes.values}
        sums = matched_overlap(last, batch, self.loss) if "labels" in batch else None
        return BatchResult(sums=sums, rows=rows)


def detect_batch(config: Config) -> DetectBatch:
    """The function of a config."""
    padded = config.data.resize == "letterbox"
    return DetectBatch(config.model, config.loss, config.scoring, padded)


def matched_overlap(predictions: Predictions, batch: Batch, loss: LossConfig) -> Total:
    """Sum of the IoU over matched objects, and how many are matched.

    Nothing is matched where there is room for more objects than there are queries.
    """
    labels = jnp.where(batch["weight"][:, None] > 0, batch["labels"], NO_OBJECT)
    targets = Targets(cxcywh_norm(batch["boxes"]), labels)
    if labels.shape[1] > predictions.logits.shape[1]:
        return Total(jnp.zeros(()), jnp.zeros(()))
    one_set = jax.tree.map(lambda x: x[None].astype(jnp.float32), predictions)
    cost, _ = matching_cost(one_set, targets, loss)
    assigned = assign(cost, targets.count)[0]
    index = jnp.clip(assigned, 0)[..., None]
    wanted = jnp.take_along_axis(targets.boxes.values, index, axis=1)
    shared = iou(predictions.boxes, Boxes(wanted, None, targets.boxes.format))
    matched = assigned != FREE
    count = jnp.sum(matched).astype(jnp.float32)
    return Total(jnp.sum(jnp.where(matched, shared, 0.0)), count)


def in_image_pixels(
    rows: Mapping[str, np.ndarray], sizes: Sequence[Size], canvas: Size, resize: str
) -> tuple[list[Found], int]:
    """The detections of each image, and how many were left out because they were no numbers.

    Args:
      rows: `scores`, `labels`, `boxes` of every image, from `DetectBatch`.
      sizes: of the images.
    """
    found, broken = [], 0
    for scores, labels, values, size in zip(rows["scores"], rows["labels"], rows["boxes"], sizes):
        right = np.isfinite(scores) & np.isfinite(values).all(axis=-1)
        broken += int((~right).sum())
        # float64: float32 would move corners by a thousandth of a pixel.
        boxes = cxcywh_norm(values[right].astype(np.float64))
        placed = placement(size, canvas, resize).to_image(boxes)
        found.append(Found(placed, labels[right], scores[right].astype(np.float64)))
    return found, broken


def detect_frames(
    config: Config,
    weights: Weights,
    frames: Iterable[Frame],
    layout: Layout,
    batch_size: int,
    skip: Callable[[str], None],
) -> Iterator[tuple[Frame, Found]]:
    """Every readable frame with its detections, in batches of one shape.

    Args:
      batch_size: rounded up to a multiple of the parts of the mesh; the last batch is filled up.
      skip: gets the sentence of each unreadable frame.
    """
    shards = batch_shards(layout.mesh)
    batch_size = -(-batch_size // shards) * shards
    compiled = jax.jit(detect_batch(config), out_shardings=layout.replicated)
    data = config.data
    for group in _groups(_readable(frames, skip), batch_size):
        canvases = [_canvas(frame, config) for frame in group]
        canvases += canvases[-1:] * (batch_size - len(group))
        batch = layout.put_batch(stack_examples(canvases), batch_size)
        result = compiled(weights.params, weights.statistics, batch)
        rows = {name: np.asarray(value)[: len(group)] for name, value in result.rows.items()}
        sizes = [_size(frame) for frame in group]
        found, _ = in_image_pixels(rows, sizes, data.size, data.resize)
        yield from zip(group, found)


def _readable(frames: Iterable[Frame], skip: Callable[[str], None]) -> Iterator[Frame]:
    for frame in frames:
        if isinstance(frame.pixels, str):
            skip(frame.pixels)
        else:
            yield frame


def _groups(frames: Iterator[Frame], size: int) -> Iterator[list[Frame]]:
    while group := list(itertools.islice(frames, size)):
        yield group


def _size(frame: Frame) -> Size:
    height, width = np.shape(frame.pixels)[:2]
    return height, width


def _canvas(frame: Frame, config: Config) -> Example:
    """The example of evaluation, without objects."""
    assert isinstance(frame.pixels, np.ndarray)
    data = config.data
    boxes = xyxy_px(np.zeros((0, 4)), np.array(_size(frame)))
    picture = Picture(frame.pixels, boxes, np.zeros(0, np.int32))
    canvas = unchanged(picture, data.size, data.resize, data.augment.fill)
    return {"image": canvas.pixels, "content": np.array(canvas.content, np.int32)}
