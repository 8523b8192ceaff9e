"""What an image is to be detected as, and what the network says of it.

Shapes: B images, M padded objects of an image, Q queries, K classes, L decoder layers, D denoising
queries. Objects of one image stand first; the label of the padding after them is -1. There is no
background class: what matches nothing has no label.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from rtdetr.boxes import Boxes

NO_OBJECT = -1


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Targets:
    """The objects of a batch.

    Attributes:
      boxes: `cxcywh_norm`, values `[B, M, 4]` fp32.
      labels: `[B, M]` int32; `NO_OBJECT` marks padding.
    """

    boxes: Boxes
    labels: jax.Array

    def __post_init__(self):
        # jax rebuilds trees with placeholders for their leaves, which have no format to check.
        if isinstance(self.boxes, Boxes):
            self.boxes.require("cxcywh_norm", "Targets")

    @property
    def valid(self) -> jax.Array:
        """`[B, M]` bool."""
        return self.labels != NO_OBJECT

    @property
    def count(self) -> jax.Array:
        """Number of objects of each image, `[B]` int32."""
        return jnp.sum(self.valid, axis=-1, dtype=jnp.int32)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DenoisingQueries:
    """Queries that start from noisy objects; see `rtdetr.denoising`.

    Attributes:
      classes: `[B, D]` int32, the class whose embedding the query starts from; K for empty slots.
      boxes_logit: `[B, D, 4]` fp32, noisy box as logit of `cxcywh_norm`.
      target: `[B, D]` int32, object of a positive query; -1 for negatives and empty slots.
      used: `[B, D]` bool, False for empty slots.
      allowed: `[B, D + Q, D + Q]` or `[D + Q, D + Q]` bool, whether a query (first) may attend to
        another one (second); denoising queries come first.
    """

    classes: jax.Array
    boxes_logit: jax.Array
    target: jax.Array
    used: jax.Array
    allowed: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Predictions:
    """Logits `[..., B, Q, K]` and boxes (`cxcywh_norm`, `[..., B, Q, 4]`), both fp32."""

    logits: jax.Array
    boxes: Boxes


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DetectorOutput:
    """Everything that the loss looks at.

    Attributes:
      decoder: `[L, B, Q, ...]`, one set for each decoder layer, the last one is the answer.
      encoder: `[B, Q, ...]` of the selected tokens.
      denoising: `[L, B, D, ...]`, or None.
      selected: `[B, Q]` int32, the tokens that became queries, best first.
    """

    decoder: Predictions
    encoder: Predictions
    denoising: Predictions | None
    selected: jax.Array
