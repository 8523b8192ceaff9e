"""The auxiliary terms of a batch: from parameters, placements and what the data says, to totals.

Letters: F frames of the batch, T of the sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from hand_object.config import FieldConfig
from hand_object.fields.layers import Params
from hand_object.grasps import Grasp
from hand_object.hands.skinning import pose_hand
from hand_object.loss_config import ContactPhase, TemporalPhase
from hand_object.losses import contact, temporal
from hand_object.losses.temporal import Neighbors
from hand_object.render.nodes import scene_distance
from hand_object.render.placement import HandPlacement, Placement
from hand_object.render.rigid import rotation_matrix
from hand_object.render.scene_placement import Statics
from training.loss import Total

# What each term moves, as regexes of parameter paths; the rest has no gradient of it.
POSES, OBJECT_SDF = r"poses/.*", r"nodes/object/sdf/.*"


def nothing() -> Total:
    """A total that weighs nothing."""
    return Total(jnp.float32(0.0), jnp.float32(0.0))


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
            scene_distance(node, model, thing, skin * scale, octaves) / scale,
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
