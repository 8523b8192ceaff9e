"""Stands in for the network: finds the extent of each color of `memory_dataset.blocks`.

Its only parameter moves all boxes to the right, by a share of the canvas.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from rtdetr.boxes import cxcywh_norm
from rtdetr.config import Config, DataConfig, ScoringConfig
from rtdetr.data.source import DetectionSource
from rtdetr.targets import DetectorOutput, Predictions
from tests.rtdetr.data.memory_dataset import COLORS
from training.config import EvaluationConfig, MeshConfig
from training.mesh import Layout, make_mesh

CANVAS = (96, 128)


def detect(config, params, statistics, images, content=None, *, train, layers=None, queries=None):
    """As `rtdetr.model.detector.detect`: a query for each color, sure where there is some."""
    colors = jnp.array(COLORS, jnp.float32)
    distance = jnp.abs(images[:, None].astype(jnp.float32) - colors[None, :, None, None])
    painted = jnp.max(distance, axis=-1) < 60
    present = painted.any(axis=(2, 3))
    left, right = _extent(painted.any(axis=2))
    top, bottom = _extent(painted.any(axis=3))
    shift = params["shift"]
    boxes = [(left + right) / 2 + shift, (top + bottom) / 2, right - left, bottom - top]
    share = painted.mean(axis=(2, 3))
    logits = jnp.where(present, 1 + 10 * share, -6.0)[:, :, None] * jnp.eye(3)[None]
    logits = jnp.where(jnp.eye(3)[None] > 0, logits, -7.0)
    answer = Predictions(logits[None], cxcywh_norm(jnp.stack(boxes, axis=-1)[None]))
    return DetectorOutput(answer, answer, None, None), statistics  # type: ignore[arg-type]


def _extent(seen):
    """First and last place along the last axis, as edges over its length."""
    length = seen.shape[-1]
    places = jnp.arange(length).reshape(1, 1, length)
    first = jnp.min(jnp.where(seen, places, length), axis=-1)
    last = jnp.max(jnp.where(seen, places + 1, 0), axis=-1)
    return first / length, jnp.maximum(last, first) / length


def config_of(resize="letterbox", **scoring) -> Config:
    """A config of three objects an image at most."""
    return Config(
        system="rtdetr",
        data=DataConfig(folder="memory", size=CANVAS, resize=resize, max_objects=3),
        scoring=ScoringConfig(**{"bootstrap": 20, "pictures": 2, **scoring}),
        evaluation=EvaluationConfig(batch_size=4),
    )


def source_of(dataset, config: Config) -> DetectionSource:
    return DetectionSource(dataset, config.data, 0, 4, 10, False)


def state_of(shift=0.0, average=None):
    """A state whose weights, and whose average of them, shift boxes."""
    ema = None
    if average is not None:
        ema = {"params": {"shift": np.float32(average)}, "statistics": {}}
    return SimpleNamespace(params={"shift": np.float32(shift)}, model_state={}, ema=ema)


def layout_of(devices=1) -> Layout:
    import jax

    return Layout(make_mesh(MeshConfig(), jax.devices()[:devices]))


def with_scoring(config: Config, **values) -> Config:
    return dataclasses.replace(config, scoring=dataclasses.replace(config.scoring, **values))
