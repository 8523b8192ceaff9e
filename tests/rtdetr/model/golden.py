"""The small RT-DETR of the reference values: its config, its weights here, its arrays."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from rtdetr.config import BackboneConfig, DecoderConfig, EncoderConfig, ModelConfig
from rtdetr.weights.names import entries, to_tree

CONFIG = ModelConfig(
    # The reference has gradients of the stem.
    backbone=BackboneConfig(
        depths=(1, 2, 1, 1), stem=(8, 8, 16), widths=(8, 16, 32, 64), freeze_stem=False
    ),
    encoder=EncoderConfig(width=32, heads=4, feed_forward=64),
    decoder=DecoderConfig(
        width=32,
        heads=4,
        feed_forward=64,
        layers=3,
        queries=20,
        position_hidden=(64,),
        # As in the reference.
        select_invalid=True,
        look_forward_twice=False,
    ),
)


def golden_weights(data_root):
    """Their arrays by name."""
    return dict(np.load(data_root / "detector" / "reference" / "tiny_rtdetr_weights.npz"))


def golden_tree(weights):
    """`{"params": ..., "statistics": ...}`."""
    return to_tree({e.path: jnp.asarray(e.to_ours(weights[e.name])) for e in entries(CONFIG)})
