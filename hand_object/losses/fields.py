"""Terms on the fields themselves: they should be distances, and a hand like its template.

All in canonical units. Letters: N points.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hand_object.config import FieldConfig
from hand_object.fields.layers import Params
from hand_object.fields.prefit import CLAMP
from hand_object.fields.sdf_network import sdf_feature_normal, signed_distance
from hand_object.fields.triplane import HALF_SIDE
from training.loss import Total

ANYWHERE = 512  # points of the eikonal term that lie anywhere in the cube of the field
FROM_TEMPLATE = 512  # points around the template that are compared in an update


def eikonal(gradients: jax.Array, weight: jax.Array) -> Total:
    """(|gradient| - 1)^2 of gradients [N, 3] with weights [N]."""
    # The root of a sum of squares has no derivative at zero.
    length = jnp.sqrt(jnp.sum(jnp.square(gradients), axis=-1) + 1e-12)
    return Total(jnp.sum(weight * jnp.square(length - 1.0)), jnp.sum(weight))


def eikonal_anywhere(
    key: jax.Array, params: Params, config: FieldConfig, octaves: jax.Array | None
) -> Total:
    """The same at random points of the cube, where no ray may ever come."""
    x = jax.random.uniform(key, (ANYWHERE, 3), minval=-HALF_SIDE, maxval=HALF_SIDE)
    _, _, gradients = sdf_feature_normal(params, config, x, octaves)
    return eikonal(gradients, jnp.ones(ANYWHERE))


def template(
    key: jax.Array,
    params: Params,
    config: FieldConfig,
    points: jax.Array,
    distances: jax.Array,
) -> Total:
    """L1 of distances near the template of a hand, both cut off at `CLAMP` (HOLD's mano_cano)."""
    chosen = jax.random.randint(key, (FROM_TEMPLATE,), 0, len(points))
    found = signed_distance(params, config, points[chosen])
    wrong = jnp.clip(found, -CLAMP, CLAMP) - jnp.clip(distances[chosen], -CLAMP, CLAMP)
    return Total(jnp.sum(jnp.abs(wrong)), jnp.float32(FROM_TEMPLATE))
