"""All nodes of a scene in some frames: from pose tables to `Placement`s.

`Statics` is what no training changes: hand models with their capsules, the frame of the object and
the scale of the scene. It is an argument of compiled functions. Letters: F frames, T of the
sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hand_object.data.sequence import CLASS_OF, Sequence
from hand_object.fields.layers import Params
from hand_object.fields.prefit import canonical_frame
from hand_object.hands.bones import bone_capsules
from hand_object.hands.model import HandModel
from hand_object.hands.skinning import pose_hand
from hand_object.render.placement import HandPlacement, ObjectPlacement, Placement
from hand_object.render.pose_tables import (
    finger_pose,
    hand_table,
    object_placement,
    object_table,
)
from hand_object.render.skinning import Capsules

AWAY = 1e3  # meters: where a node is put in frames without it, so that no ray meets it


class HandStatics(NamedTuple):
    """A hand model, its bones in the rest pose, and center [3] and radius [] of that pose."""

    model: HandModel
    capsules: Capsules
    center: Any
    radius: Any


class Statics(NamedTuple):
    """Hands by side; center [3] and radius [] of the object in raw units; scene units per meter."""

    hands: dict[str, HandStatics]
    object_center: Any
    object_radius: Any
    scene_scale: Any


def statics_of(sequence: Sequence, hands: Mapping[str, HandModel]) -> Statics:
    """Of a sequence; numpy."""
    thing = sequence.object
    return Statics(
        {side: hand_statics(model, sequence.hands[side].shape) for side, model in hands.items()},
        np.zeros(3, np.float32) if thing is None else thing.center,
        np.float32(1.0 if thing is None else thing.radius),
        np.float32(sequence.scene_scale),
    )


def hand_statics(model: HandModel, shape: np.ndarray) -> HandStatics:
    """The canonical frame is that of the hand in its shape, at rest."""
    shaped = shaped_model(model, shape)
    center, radius = canonical_frame(np.asarray(shaped.template))
    capsules = jax.tree.map(np.asarray, bone_capsules(shaped))
    return HandStatics(shaped, capsules, center.astype(np.float32), np.float32(radius))


def shaped_model(model: HandModel, shape: np.ndarray) -> HandModel:
    """The model with a shape built in: shape numbers are taken as given, and not learned.

    Numbers of another model (HOLD writes ten zeros for any) count as none.
    """
    used = np.asarray(shape, np.float32)
    if len(used) != model.shape_size:
        used = np.zeros(model.shape_size, np.float32)

    def moved(points, directions) -> np.ndarray:
        change = np.einsum("s,sva->va", used, np.asarray(directions))
        return (np.asarray(points) + change).astype(np.float32)

    return replace(
        model,
        template=moved(model.template, model.shape_dirs),
        joints=moved(model.joints, model.joint_dirs),
        tips=moved(model.tips, model.tip_dirs),
        shape_dirs=np.zeros((0, len(model.template), 3), np.float32),
        joint_dirs=np.zeros((0, len(model.joints), 3), np.float32),
        tip_dirs=np.zeros((0, len(model.tips), 3), np.float32),
        shape_names=(),
    )


def start_tables(sequence: Sequence) -> Params:
    """Pose tables of all nodes as the data has them."""
    tables: Params = {}
    for side, track in sequence.hands.items():
        table = hand_table(track.pose, track.translation, track.shape)
        del table["shape"]  # built into the statics
        tables[side] = table
    thing = sequence.object
    if thing is not None:
        tables["object"] = object_table(thing.axis_angle, thing.translation, thing.scale)
    return tables


def placements(
    tables: Params, statics: Statics, frames: jax.Array, there: jax.Array
) -> dict[str, Placement]:
    """Where the nodes are.

    Args:
      frames: [F].
      there: [F, 4] bool by class, see `frame_arrays`; nodes that are not there are out of sight.
    """
    placed: dict[str, Placement] = {}
    scale = jnp.asarray(statics.scene_scale)
    for name, table in tables.items():
        away = jnp.where(there[:, CLASS_OF[name]], 0.0, AWAY)
        if name == "object":
            own = object_placement(
                table,
                frames,
                scale,
                jnp.asarray(statics.object_center),
                jnp.asarray(statics.object_radius),
            )
            similarity = own.similarity
            moved = similarity.translation + (scale * away)[:, None]
            placed[name] = ObjectPlacement(similarity._replace(translation=moved), frames)
        else:
            placed[name] = hand_placement(table, statics.hands[name], scale, frames, away)
    return placed


def hand_placement(
    table: Params, hand: HandStatics, scale: jax.Array, frames: jax.Array, away: jax.Array
) -> HandPlacement:
    """A hand in frames [F], each shifted by `away` [F] meters."""
    posed = pose_hand(hand.model, table["pose"][frames], table["translation"][frames], None)
    return HandPlacement(
        posed.vertices + away[:, None, None],
        posed.transforms,
        jnp.asarray(hand.model.weights),
        jax.tree.map(jnp.asarray, hand.capsules),
        jnp.asarray(hand.center),
        jnp.asarray(hand.radius),
        scale,
        finger_pose(table, frames),
    )
