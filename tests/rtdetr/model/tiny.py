"""A detector that compiles in seconds, with random weights in every array."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from rtdetr.config import BackboneConfig, DecoderConfig, EncoderConfig, ModelConfig

CLASSES, CANVAS = 3, (64, 96)
CONFIG = ModelConfig(
    backbone=BackboneConfig(
        block="basic",
        depths=(1, 1, 1, 1),
        stem=(4, 4, 8),
        widths=(8, 8, 12, 16),
        freeze_stem=False,
        freeze_norm=False,
    ),
    encoder=EncoderConfig(width=16, heads=2, feed_forward=16, blocks=1),
    decoder=DecoderConfig(
        width=16, heads=2, feed_forward=16, layers=2, queries=8, position_hidden=(16,)
    ),
)


def changed(**decoder):
    """The config with other settings of its decoder."""
    return dataclasses.replace(CONFIG, decoder=dataclasses.replace(CONFIG.decoder, **decoder))


def some_images(count=2, seed=11, canvas=CANVAS):
    """uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (count, *canvas, 3)).astype(np.uint8)


def stirred(tree, seed=12):
    """Every leaf moved a little, so that nothing is zero that starts at zero."""
    draw = np.random.default_rng(seed)

    def move(leaf):
        return leaf + jnp.asarray(draw.normal(0, 0.1, leaf.shape), jnp.float32)

    return jax.tree.map(move, tree)
