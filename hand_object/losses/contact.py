"""Hands touch what they hold and do not enter it: terms on signed distances, without any mesh.

A distance [F, V] is that of a posed vertex of a hand from the field of the object, in meters and
negative inside. A violation of `unit` meters (5 mm) counts 1. *Zones* are finger tips and palm
(`hands.zones`). Letters: F frames, V vertices of the hand, Z zones.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from training.loss import Total

LINEAR_FROM = 0.02  # meters of depth from which penetration grows linearly
SOFTNESS = 0.002  # meters over which the nearest vertices of a zone share its distance
_NEVER = -1e9  # a logit of what is not in a zone


def penetration(distances: jax.Array, unit: float) -> jax.Array:
    """[F] mean over all vertices of the squared depth, in squares of `unit`; linear when deep.

    A deep vertex pulls as hard as one of `LINEAR_FROM`: a hand that starts inside is moved out
    and not thrown out.
    """
    depth = jax.nn.relu(-distances)
    square = jnp.square(depth)
    linear = 2.0 * LINEAR_FROM * depth - LINEAR_FROM**2
    return jnp.mean(jnp.where(depth <= LINEAR_FROM, square, linear), axis=-1) / unit**2


def zone_distances(distances: jax.Array, zones: jax.Array) -> jax.Array:
    """[F, Z] meters between the surface and the nearest vertices of each zone; 0 inside.

    The softest minimum that has no bias: where all vertices are equally far, it is their distance.

    Args:
      zones: [Z, V] bool, which vertices are of a zone.
    """
    outside = jax.nn.relu(distances)[:, None]
    near = jax.nn.softmax(jnp.where(zones[None], -outside / SOFTNESS, _NEVER), axis=-1)
    return jnp.sum(near * outside, axis=-1)


def attraction(
    distances: jax.Array, zones: jax.Array, touching: jax.Array, unit: float, reach: float
) -> jax.Array:
    """[F] mean over the zones that touch of their squared distance, in squares of `unit`.

    Args:
      zones: [Z, V] bool.
      touching: [F, Z] bool, which zones should touch in a frame; others are left alone.
      reach: meters; a zone that is farther away is left alone too.
    """
    gap = zone_distances(distances, zones)
    counted = (touching & (gap < reach)).astype(gap.dtype)
    wrong = jnp.sum(counted * jnp.square(gap / unit), axis=-1)
    return wrong / jnp.maximum(jnp.sum(touching, axis=-1), 1)


def contact(
    distances: jax.Array,
    zones: jax.Array,
    touching: jax.Array,
    holding: jax.Array,
    *,
    unit: float,
    reach: float,
    penetration_weight: float,
    attraction_weight: float,
) -> Total:
    """Both terms together, a mean over the frames in which the hand holds the object.

    Args:
      distances: [F, V] meters.
      zones: [Z, V] bool.
      touching: [F, Z] bool.
      holding: [F] bool; other frames weigh nothing.
    """
    weight = holding.astype(distances.dtype)
    each = penetration_weight * penetration(distances, unit)
    each = each + attraction_weight * attraction(distances, zones, touching, unit, reach)
    return Total(jnp.sum(weight * each), jnp.sum(weight))
