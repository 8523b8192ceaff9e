"""From the answers of queries to a list of detections, best first.

Every query may answer for several classes: its classes compete with those of all other queries, and
nothing is suppressed, because training made queries exclusive. No score is too low: a threshold
belongs to a drawing, and would lower the measured average precision.

Shapes: B images, Q queries, K classes, N detections.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from rtdetr.boxes import Boxes, cxcywh_norm


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Detections:
    """The detections of a batch, best first.

    Attributes:
      scores: `[B, N]` fp32, probabilities.
      labels: `[B, N]` int32.
      boxes: `cxcywh_norm` `[B, N, 4]` fp32 over the canvas.
    """

    scores: jax.Array
    labels: jax.Array
    boxes: Boxes


def top_detections(logits: jax.Array, boxes: Boxes, count: int) -> Detections:
    """The `count` best pairs of query and class; all of them where there are fewer.

    Made of a sort and of gathers, so that it can be exported with the network.

    Args:
      logits: `[B, Q, K]`.
      boxes: `cxcywh_norm` `[B, Q, 4]`.

    Raises:
      BoxFormatError: boxes that are not normalized.
    """
    boxes.require("cxcywh_norm", "top_detections")
    images, queries, classes = logits.shape
    pairs = logits.astype(jnp.float32).reshape(images, queries * classes)
    # Of logits: the sigmoid is monotone, but rounds different large logits to the same number.
    best, place = jax.lax.top_k(pairs, min(count, queries * classes))
    # Query by query: the class changes fastest.
    query, label = place // classes, place % classes
    values = boxes.values.astype(jnp.float32)
    chosen = jnp.take_along_axis(values, query[:, :, None], axis=1)
    return Detections(jax.nn.sigmoid(best), label.astype(jnp.int32), cxcywh_norm(chosen))
