"""What it costs to let a query answer for an object.

    cost = match_l1 * L1 + match_class * focal - match_giou * GIoU

L1 is the sum over center and sides. The focal part is what the focal loss (Lin et al. 2017, alpha
0.25, gamma 2) of the object's class would change if the query became its positive.

Shapes: S prediction sets (decoder layers and the encoder), B images, M objects, Q queries, K
classes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rtdetr.boxes import Boxes
from rtdetr.config import LossConfig
from rtdetr.losses.overlap import iou_and_giou
from rtdetr.targets import Predictions, Targets

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
# Of a pair whose cost is no number: far above any cost of real boxes (which stay below 100), and
# still small enough that sums of it are exact to a thousandth in float32. The largest float32
# would overflow; a small number would make a broken query everybody's first choice.
WORST_COST = 1e4


def matching_cost(
    predictions: Predictions, targets: Targets, config: LossConfig
) -> tuple[jax.Array, jax.Array]:
    """The finite cost of every pair, and how many had none.

    Args:
      predictions: logits `[S, B, Q, K]`, boxes `[S, B, Q, 4]`.

    Returns:
      `[S, B, M, Q]` fp32, at most `WORST_COST`; rows of padding hold numbers without meaning.
      A scalar int32: pairs of objects (not padding) and queries whose cost was not finite.
    """
    l1, giou = _box_costs(predictions.boxes, targets.boxes)
    cost = (
        config.match_l1 * l1
        + config.match_class * _focal_cost(predictions.logits, targets.labels)
        - config.match_giou * giou
    )
    finite = jnp.isfinite(cost)
    broken = jnp.sum(~finite & targets.valid[None, :, :, None], dtype=jnp.int32)
    return jnp.where(finite, jnp.minimum(cost, WORST_COST), WORST_COST), broken


def _box_costs(predicted: Boxes, wanted: Boxes) -> tuple[jax.Array, jax.Array]:
    """L1 distance and GIoU, `[S, B, M, Q]`."""
    predicted.require("cxcywh_norm", "the matching cost")
    queries = Boxes(predicted.values[:, :, None].astype(jnp.float32), None, predicted.format)
    objects = Boxes(wanted.values[None, :, :, None], None, wanted.format)
    _, giou = iou_and_giou(objects, queries)
    return jnp.sum(jnp.abs(queries.values - objects.values), axis=-1), giou


def _focal_cost(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Focal loss as a positive minus focal loss as a negative, `[S, B, M, Q]`."""
    classes = jnp.clip(labels, 0)[None, :, :, None]  # padding has no class; its rows are not read
    z = jnp.swapaxes(logits.astype(jnp.float32), -1, -2)  # [S, B, K, Q]
    z = jnp.take_along_axis(z, classes, axis=-2)
    small = jnp.exp(-jnp.abs(z))  # once for both functions: there are millions of pairs
    p = jnp.where(z >= 0, 1.0, small) / (1 + small)
    softplus = jnp.maximum(z, 0.0) + jnp.log1p(small)
    positive = FOCAL_ALPHA * (1 - p) ** FOCAL_GAMMA * (softplus - z)
    negative = (1 - FOCAL_ALPHA) * p**FOCAL_GAMMA * softplus
    return positive - negative
