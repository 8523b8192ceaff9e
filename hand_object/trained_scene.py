"""A trained scene as a `Reconstruction`: its fields meshed and colored, its pose tables as motion.

A hand is meshed in the rest pose and skinned by the weights that its field was rendered with; the
object is meshed in its own frame. Colors of vertices are means over some frames, since the networks
shade with the pose. Frames that were held out have the poses of `held_out`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from hand_object.config import FieldConfig
from hand_object.data.ground_truth import ground_truth
from hand_object.data.sequence_access import Opened
from hand_object.fields.color_network import color, pose_code
from hand_object.fields.layers import Params
from hand_object.fields.sdf_network import sdf_feature_normal, signed_distance
from hand_object.fields.triplane import HALF_SIDE
from hand_object.held_out import followed_params
from hand_object.meshing import Mesh, extract
from hand_object.reconstruction import MovingObject, Reconstruction, moving_hand
from hand_object.render.nodes import scene_normals
from hand_object.render.scene_placement import HandStatics
from hand_object.render.skinning import capsule_weights, vertex_weights
from hand_object.subject import Subject

RESOLUTION = 128  # cells along a side of the canonical cube
_by_capsules = jax.jit(capsule_weights, static_argnums=3)
_by_vertices = jax.jit(vertex_weights, static_argnums=3)
SHADES = 6  # frames whose colors are averaged
CUBE = (np.full(3, -HALF_SIDE), np.full(3, HALF_SIDE))


def trained_scene(
    task: Subject, params: Mapping[str, Any], resolution: int = RESOLUTION
) -> Reconstruction:
    """What a run has found.

    Args:
      params: of the state, on the host or on a device.

    Raises:
      InputError: a field has no surface.
    """
    params = followed_params(jax.device_get(params), task.start_poses, task.held_out)
    opened, model = task.opened, task.config.model
    sequence = opened.sequence
    hands = {}
    for side, statics in task.statics.hands.items():
        table, track = params["poses"][side], sequence.hands[side]
        node = params["nodes"][side]
        canonical = canonical_mesh(node, model, resolution, f"the {side} hand")
        tint = _hand_colors(node, model, canonical.vertices, table, track.valid, statics)
        radius, center = float(statics.radius), np.asarray(statics.center, np.float64)
        rest = replace(canonical, vertices=canonical.vertices * radius + center, colors=tint)
        weights = rest_weights(rest.vertices, statics, model)
        hand = moving_hand(
            statics.model, table["pose"], table["translation"], None, track.valid, (rest, weights)
        )
        hands[side] = replace(hand, shape=np.asarray(track.shape))
    return Reconstruction(
        name=sequence.name,
        hands=hands,
        object=_object(task, params, resolution),
        intrinsics=sequence.intrinsics.astype(np.float64),
        world_to_camera=sequence.world_to_camera.astype(np.float64),
        size=sequence.size,
    )


def true_scene(opened: Opened) -> Reconstruction | None:
    """The ground truth of a sequence; None where there is none of one hand and an object."""
    if len(opened.sequence.hands) != 1 or not {"hand_trans", "object_vertices"} <= set(
        opened.truth
    ):
        return None
    return ground_truth(opened.truth, opened.sequence, opened.hands, "ground_truth.npz")


def canonical_mesh(node: Mapping[str, Any], model: FieldConfig, resolution: int, name: str) -> Mesh:
    """The surface of a field in its canonical frame."""
    return extract(_asked(node["sdf"], model), CUBE, resolution, name)


@partial(jax.jit, static_argnums=1)
def _distance(sdf: Params, model: FieldConfig, points: jax.Array) -> jax.Array:
    return signed_distance(sdf, model, points)


def _asked(sdf: Mapping[str, Any], model: FieldConfig) -> Callable[[np.ndarray], np.ndarray]:
    def distance(points: np.ndarray) -> np.ndarray:
        return np.asarray(_distance(dict(sdf), model, _filled(points)))[: len(points)]

    return distance


def _filled(points: np.ndarray) -> np.ndarray:
    """float32, repeated up to a power of two: few shapes are compiled."""
    wanted = 1 << max(len(points) - 1, 1).bit_length()
    return np.resize(points.astype(np.float32), (wanted, 3))


def rest_weights(rest: np.ndarray, hand: HandStatics, model: FieldConfig) -> np.ndarray:
    """Skinning weights [V, J] of points [V, 3] of the rest pose, by the rule of the rendering."""
    settings, joints = model.skinning, len(hand.model.joints)
    points = jnp.asarray(rest, jnp.float32)
    if settings.kind == "capsules":
        still = jnp.broadcast_to(jnp.eye(4), (joints, 4, 4))
        capsules = jax.tree.map(jnp.asarray, hand.capsules)
        weights, _ = _by_capsules(points, capsules, still, settings.capsule_softness)
    else:
        template = jnp.asarray(hand.model.template)
        own = jnp.asarray(hand.model.weights)
        weights, _ = _by_vertices(points, template, own, settings.vertex_softness)
    return np.asarray(weights, np.float64)


def _object(task: Subject, params: Mapping[str, Any], resolution: int) -> MovingObject | None:
    thing = task.opened.sequence.object
    if thing is None:
        return None
    node, table = params["nodes"]["object"], params["poses"]["object"]
    canonical = canonical_mesh(node, task.config.model, resolution, "the object")
    turns = Rotation.from_rotvec(table["rotation"]).as_matrix()
    to_world = np.tile(np.eye(4), (len(turns), 1, 1))
    to_world[:, :3, :3], to_world[:, :3, 3] = turns, table["translation"]
    frames = shades(thing.valid)
    codes = np.asarray(node["frame_codes"])[frames]
    still = np.zeros((len(frames), task.config.model.color.pose_code), np.float32)
    inverse = np.broadcast_to(
        np.swapaxes(turns[frames], 1, 2)[:, None], (len(frames), len(canonical.vertices), 3, 3)
    )
    tint = _colors(node, task.config.model, canonical.vertices, inverse, still, codes)
    scale = float(np.exp(table["log_scale"]))
    vertices = scale * (canonical.vertices * thing.radius + np.asarray(thing.center, np.float64))
    return MovingObject(Mesh(vertices, canonical.faces, tint), to_world, thing.valid)


def _hand_colors(node, model: FieldConfig, vertices, table, valid, statics: HandStatics):
    frames = shades(valid)
    fingers = np.asarray(table["pose"])[frames, 1:].reshape(len(frames), -1)
    codes = pose_code(node["pose_code"], jnp.asarray(fingers, jnp.float32))
    whole = Rotation.from_rotvec(np.asarray(table["pose"])[frames, 0]).as_matrix()
    # The bend of fingers is left out: it turns normals of finger tips only.
    inverse = np.broadcast_to(np.swapaxes(whole, 1, 2)[:, None], (len(frames), len(vertices), 3, 3))
    return _colors(node, model, vertices, inverse, np.asarray(codes), None)


def shades(valid: np.ndarray) -> list[int]:
    """Numbers of some frames, evenly spread over those that are valid."""
    rows = np.flatnonzero(valid)
    if not len(rows):
        return [0]
    return np.unique(rows[np.linspace(0, len(rows) - 1, SHADES).round().astype(int)]).tolist()


def _colors(node, model: FieldConfig, vertices, inverse, codes, frame_codes) -> np.ndarray:
    """[V, 3] uint8: the mean over frames, whose rotations and codes are given frame by frame."""
    points = vertices.astype(np.float32)
    total = np.zeros((len(vertices), 3))
    for frame in range(len(inverse)):
        own = None if frame_codes is None else frame_codes[frame]
        total += np.asarray(_shade(node, model, points, inverse[frame], codes[frame], own))
    return np.rint(255 * np.clip(total / len(inverse), 0, 1)).astype(np.uint8)


@partial(jax.jit, static_argnums=1)
def _shade(node: Params, model: FieldConfig, points, inverse, code, frame_code) -> jax.Array:
    def chunk(values):
        x, turn = values
        _, features, gradients = sdf_feature_normal(node["sdf"], model, x[None])
        normals = scene_normals(gradients, turn[None])
        codes = None if frame_code is None else frame_code[None]
        return color(node["color"], model, x[None], normals, code[None], features, codes)[0]

    return jax.lax.map(chunk, (points, jnp.asarray(inverse, jnp.float32)), batch_size=4096)
