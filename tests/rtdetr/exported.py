"""A tiny trained network, and the export command on it."""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import jax
import numpy as np

from rtdetr.config import (
    BackboneConfig,
    Config,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    ScoringConfig,
)
from rtdetr.data.dataset import ClassTable
from rtdetr.export import add_arguments, check_arguments, export
from rtdetr.inference import Weights
from rtdetr.model.detector import init
from training.config import EvaluationConfig

CANVAS = (64, 96)
NAMES = ("circle", "square", "triangle")
MODEL = ModelConfig(
    backbone=BackboneConfig("basic", (1, 1, 1, 1), (8, 8, 8), (8, 8, 8, 8)),
    encoder=EncoderConfig(width=16, heads=2, feed_forward=16, blocks=1),
    decoder=DecoderConfig(
        width=16, heads=2, feed_forward=16, layers=2, queries=20, position_hidden=(8,)
    ),
)


def config_of(resize="letterbox", folder="nowhere", **scoring) -> Config:
    """Of the tiny network."""
    return Config(
        system="rtdetr",
        model=MODEL,
        data=DataConfig(folder=str(folder), size=CANVAS, resize=resize, max_objects=8),
        scoring=ScoringConfig(**{"bootstrap": 0, "pictures": 0, "detections": 12, **scoring}),
        evaluation=EvaluationConfig(batch_size=4),
    )


def weights_of() -> Weights:
    """Random ones: no two answers are alike, and no norm is the identity."""
    generator = np.random.default_rng(5)

    def drawn(path, leaf):
        name = path[-1].key
        draw = generator.standard_normal(leaf.shape).astype(np.float32)
        if name in ("scale", "var"):
            return 1 + 0.2 * np.abs(draw)
        fan_in = np.prod(leaf.shape[:-1]) if name == "kernel" else 25
        return draw / np.sqrt(fan_in).astype(np.float32)

    shapes = jax.eval_shape(lambda key: init(key, MODEL, len(NAMES)), jax.random.key(0))
    return Weights(*jax.tree_util.tree_map_with_path(drawn, shapes))


def state_of(weights: Weights) -> SimpleNamespace:
    """Whose average is the weights; the last ones are all zero."""
    average = {"params": weights.params, "statistics": weights.statistics}
    return SimpleNamespace(
        params=jax.tree.map(np.zeros_like, weights.params),
        model_state=weights.statistics,
        ema=average,
    )


def run_export(weights: Weights, config: Config, output, *arguments) -> list[str]:
    """The lines of `podvision export --output output arguments`."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["--output", str(output), *(str(one) for one in arguments)])
    args.workdir = "run"
    check_arguments(args)
    task = SimpleNamespace(config=config, classes=ClassTable(NAMES, (1, 2, 5)))
    return export(SimpleNamespace(task=task), state_of(weights), 7, args)  # type: ignore[arg-type]


def canvases(config: Config, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Two random canvases, and sizes of the images: one wide, one tall."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (2, *config.data.size, 3), np.uint8)
    return images, np.array([[100, 320], [333, 201]], np.int32)
