"""Where nodes are in the scene, frame by frame, and their canonical points.

Two kinds: a hand, whose points are unskinned to the rest pose, and a rigid object. The scene is the
world in meters times `scene_scale`, with the world's origin at the center of the bounding sphere.
Canonical frames: the rest pose of the hand about its center, over its radius; the object about its
center, over its radius. Both then fit into the unit ball.

Placements are arguments of compiled functions, templates included: closed over, XLA would fold
them as constants, which takes longer than a whole compilation.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hand_object.config import SkinningConfig
from hand_object.fields.triplane import HALF_SIDE
from hand_object.render.rays import Interval, box_interval
from hand_object.render.rigid import Similarity, directions_to_canonical, to_canonical
from hand_object.render.skinning import Capsules, capsule_weights, unskin, vertex_weights

MARGIN = 0.02  # meters around the posed vertices that a hand is looked for in


class HandPlacement(NamedTuple):
    """A hand in F frames; meters in the world.

    Attributes:
      vertices: [F, V, 3] posed.
      transforms: [F, J, 4, 4] of joints, rest -> posed.
      weights: [V, J] skinning weights.
      capsules: bones in the rest pose.
      center, radius: [3] and [] of the template in the rest pose.
      scene_scale: [] scene units per meter.
      pose: [F, P] numbers of the finger pose, rad, for the color.
    """

    vertices: jax.Array
    transforms: jax.Array
    weights: jax.Array
    capsules: Capsules
    center: jax.Array
    radius: jax.Array
    scene_scale: jax.Array
    pose: jax.Array


class ObjectPlacement(NamedTuple):
    """A rigid object in F frames: canonical -> scene, and the rows of its learned frame codes."""

    similarity: Similarity
    frame: jax.Array  # [F] int32


Placement = HandPlacement | ObjectPlacement


class Canonical(NamedTuple):
    """Scene points in the frame of a node.

    Attributes:
      x: [F, N, 3].
      inverse: [F, N, 3, 3] d x / d scene: a canonical gradient times it is one of the scene.
      unit: [F] scene units per canonical unit.
      template: [F, N] distance to the template in scene units, or None of an object.
      beyond: [F, N] too far from the template to be unskinned, or None of an object.
    """

    x: jax.Array
    inverse: jax.Array
    unit: jax.Array
    template: jax.Array | None
    beyond: jax.Array | None


def canonical(placement: Placement, x: jax.Array, config: SkinningConfig) -> Canonical:
    """Scene points [F, N, 3] in the frame of a node."""
    if isinstance(placement, ObjectPlacement):
        return _rigid(placement.similarity, x)
    return _unskinned(placement, x, config)


def _rigid(pose: Similarity, x: jax.Array) -> Canonical:
    inverse = jnp.swapaxes(pose.rotation, -1, -2) / pose.scale[:, None, None]
    inverse = jnp.broadcast_to(inverse[:, None], (*x.shape, 3))
    return Canonical(to_canonical(pose, x), inverse, pose.scale, None, None)


def _unskinned(hand: HandPlacement, x: jax.Array, config: SkinningConfig) -> Canonical:
    def one_frame(points, vertices, transforms):
        if config.kind == "capsules":
            weights, distance = capsule_weights(
                points, hand.capsules, transforms, config.capsule_softness
            )
        else:
            weights, distance = vertex_weights(
                points, vertices, hand.weights, config.vertex_softness
            )
        return *unskin(points, weights, transforms), distance

    meters = x / hand.scene_scale
    rest, inverse, distance = jax.vmap(one_frame)(meters, hand.vertices, hand.transforms)
    unit = jnp.broadcast_to(hand.scene_scale * hand.radius, (len(x),))
    return Canonical(
        (rest - hand.center[None, None]) / hand.radius,
        inverse / (hand.scene_scale * hand.radius),
        unit,
        distance * hand.scene_scale,
        distance > config.reach,
    )


def interval(placement: Placement, origins: jax.Array, directions: jax.Array) -> Interval:
    """Depths [F, R] between which rays [F, R, 3] may meet a node; empty (equal) where not."""
    if isinstance(placement, ObjectPlacement):
        start = to_canonical(placement.similarity, origins)
        along = directions_to_canonical(placement.similarity, directions)
        side = jnp.full(3, HALF_SIDE)
        return jax.vmap(lambda o, d: box_interval(o, d, -side, side))(start, along)
    low = (jnp.min(placement.vertices, axis=1) - MARGIN) * placement.scene_scale
    high = (jnp.max(placement.vertices, axis=1) + MARGIN) * placement.scene_scale
    return jax.vmap(box_interval)(origins, directions, low, high)
