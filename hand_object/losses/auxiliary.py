"""The auxiliary terms of a batch: from parameters, placements and what the data says, to totals.

Letters: F frames of the batch, T of the sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hand_object.config import FieldConfig
from hand_object.fields.layers import Params
from hand_object.fields.sdf_network import signed_distance
from hand_object.fields.triplane import HALF_SIDE
from hand_object.grasps import Grasp
from hand_object.hands.skinning import pose_hand
from hand_object.loss_config import ContactPhase, SdsPhase, TemporalPhase
from hand_object.losses import contact, temporal
from hand_object.losses.temporal import Neighbors
from hand_object.prior.grid import UNIT, HandFrame, to_normalized, to_world
from hand_object.prior.sds import Prior, sds_loss
from hand_object.render.placement import HandPlacement, Placement, canonical
from hand_object.render.rigid import rotation_matrix
from hand_object.render.scene_placement import Statics
from training.loss import Total

# What each term moves, as regexes of parameter paths; the rest has no gradient of it.
POSES, OBJECT_SDF = r"poses/.*", r"nodes/object/sdf/.*"
_SMALL = 1e-6  # canonical units
_NEVER = -1e9  # a logit of what is not drawn


class Held(NamedTuple):
    """The hand that a prior is asked about: its side, and its normalized frame."""

    side: str
    frame: HandFrame


def nothing() -> Total:
    """A total that weighs nothing."""
    return Total(jnp.float32(0.0), jnp.float32(0.0))


def object_distance(
    node: Params,
    model: FieldConfig,
    thing: Placement,
    x: jax.Array,
    octaves: jax.Array | None,
) -> jax.Array:
    """[F, N] scene units of scene points [F, N, 3] that may lie anywhere.

    The field is only known inside of its cube; what lies outside is as far from the surface as the
    nearest point of the cube, and the way there.
    """
    place = canonical(thing, x, model.skinning)
    flat = place.x.reshape(-1, 3)
    inside = jnp.clip(flat, -HALF_SIDE, HALF_SIDE)
    # The root of a sum of squares has no derivative at zero.
    beyond = jnp.sqrt(jnp.sum(jnp.square(flat - inside), axis=-1) + _SMALL**2) - _SMALL
    distance = signed_distance(node["sdf"], model, inside, octaves) + beyond
    return distance.reshape(x.shape[:2]) * place.unit[:, None]


def contact_total(
    params: Params,
    model: FieldConfig,
    placed: Mapping[str, Placement],
    grasps: Mapping[str, Grasp],
    frames: jax.Array,
    phase: ContactPhase,
    octaves: jax.Array | None,
) -> Total:
    """Contact of all hands with the object in frames [F]."""
    total = nothing()
    thing, node = placed["object"], params["nodes"]["object"]
    if "poses" not in phase.moves:
        thing = jax.lax.stop_gradient(thing)
    if "object_sdf" not in phase.moves:
        node = jax.lax.stop_gradient(node)
    for side, grasp in grasps.items():
        hand = placed[side]
        assert isinstance(hand, HandPlacement)
        skin = hand.vertices if "poses" in phase.moves else jax.lax.stop_gradient(hand.vertices)
        scale = hand.scene_scale
        own = contact.contact(
            object_distance(node, model, thing, skin * scale, octaves) / scale,
            jnp.asarray(grasp.zones),
            jnp.asarray(grasp.touching)[frames],
            jnp.asarray(grasp.holding)[frames],
            unit=phase.unit,
            reach=phase.reach,
            penetration_weight=phase.penetration,
            attraction_weight=phase.attraction,
        )
        total = Total(total.sum + own.sum, total.weight + own.weight)
    return total


def temporal_total(
    tables: Params, statics: Statics, near: Mapping[str, Neighbors], phase: TemporalPhase
) -> Total:
    """Smoothness of all nodes over the whole sequence; nodes count alike."""
    weights = (phase.velocity, phase.acceleration if phase.window > 2 else 0.0)
    values = []
    for name, table in tables.items():
        if name == "object":
            places = table["translation"][:, None]
            values.append(temporal.of_points(places, near[name], *weights))
            turns = rotation_matrix(table["rotation"])
            values.append(temporal.of_rotations(turns, near[name], *weights))
        else:
            model: Any = statics.hands[name].model
            joints = pose_hand(model, table["pose"], table["translation"], None).joints
            values.append(temporal.of_points(joints, near[name], *weights))
    return Total(sum(values, jnp.float32(0.0)), jnp.float32(len(tables)))


def sds_total(
    params: Params,
    model: FieldConfig,
    placed: Mapping[str, Placement],
    arrays: Mapping[str, Any],
    frames: jax.Array,
    key: jax.Array,
    held: Held,
    phase: SdsPhase,
    octaves: jax.Array | None,
) -> Total:
    """What the prior says about hand and object in one of the frames [F], drawn at random.

    Args:
      arrays: `grasps`, `statics` and `prior`.
    """
    frame_key, own_key = jax.random.split(key)
    holding = jnp.asarray(arrays["grasps"][held.side].holding)[frames]
    row = jax.random.categorical(frame_key, jnp.where(holding, 0.0, _NEVER))
    prior: Prior = arrays["prior"]
    statics: Statics = arrays["statics"]
    table, own = params["poses"][held.side], frames[row][None]
    hand = statics.hands[held.side].model
    posed = pose_hand(hand, table["pose"][own], table["translation"][own], None)
    place = (posed.joints[0, 0], posed.transforms[0, 0, :3, :3], held.frame)
    thing = jax.tree.map(lambda leaf: leaf[row][None], placed["object"])
    scale = jnp.asarray(statics.scene_scale)

    def distance(points: jax.Array) -> jax.Array:
        x = to_world(points, *place)[None] * scale
        found = object_distance(params["nodes"]["object"], model, thing, x, octaves)
        return found[0] / (scale * UNIT)

    total = sds_loss(prior, distance, to_normalized(posed.joints[0], *place), own_key, phase.asked)
    # A batch may have no frame of a grasp.
    some = jnp.any(holding).astype(total.sum.dtype)
    return Total(some * total.sum, some * total.weight)
