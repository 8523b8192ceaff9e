"""Bone capsules of a hand model, for skinning that costs 20 distances a point."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from hand_object.hands.chirality import rest_joints
from hand_object.hands.model import HandModel
from hand_object.render.skinning import Capsules


def bone_capsules(model: HandModel) -> Capsules:
    """20 capsules: wrist to each knuckle, moving with the wrist, and three of each finger.

    The radius of a bone is the median distance from it of the vertices that it is the nearest bone
    of, among the bones of the joint that they move with most.
    """
    joints = rest_joints(model)
    starts = np.concatenate([np.repeat(joints[:1], 5, axis=0), *_each(joints, 1, 4)])
    ends = np.concatenate([joints[1::4], *_each(joints, 2, 5)])
    joint = np.array([0] * 5 + list(model.order[1:]))
    vertices = np.asarray(model.template, np.float64)
    owner = np.argmax(np.asarray(model.weights), axis=1)
    distance = segment_distances(vertices, starts, ends)
    distance[owner[:, None] != joint[None]] = np.inf
    nearest = np.argmin(distance, axis=1)
    radii = [
        _radius(distance[nearest == bone, bone], ends[bone] - starts[bone])
        for bone in range(len(joint))
    ]
    return Capsules(
        jnp.asarray(starts, jnp.float32),
        jnp.asarray(ends, jnp.float32),
        jnp.asarray(radii, jnp.float32),
        jnp.asarray(joint, jnp.int32),
    )


def segment_distances(points: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """[N, C] from points [N, 3] to segments."""
    bone = ends - starts
    from_start = points[:, None] - starts[None]
    along = np.einsum("nca,ca->nc", from_start, bone) / np.maximum(np.sum(bone**2, axis=1), 1e-12)
    return np.linalg.norm(from_start - np.clip(along, 0, 1)[..., None] * bone, axis=-1)


def _each(joints: np.ndarray, first: int, last: int) -> list[np.ndarray]:
    return [joints[first + 4 * finger : last + 4 * finger] for finger in range(5)]


def _radius(distances: np.ndarray, bone: np.ndarray) -> float:
    found = distances[np.isfinite(distances)]
    # A bone inside of the palm may have no vertex that is nearest to it.
    return float(np.median(found)) if len(found) else 0.25 * float(np.linalg.norm(bone))
