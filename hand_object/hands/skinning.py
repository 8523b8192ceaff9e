"""A hand model brought into a pose: vertices, joint transforms and 21 joints.

World and model share an orientation where the wrist does not turn. Letters: N poses, V vertices,
J joints, S shape numbers. Products are float32 at the highest precision of the device.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hand_object.hands.model import HandModel
from hand_object.render.rigid import HIGHEST, rotation_matrix


class PosedHand(NamedTuple):
    """Meters in the world.

    Attributes:
      vertices: [N, V, 3].
      transforms: [N, J, 4, 4] rest -> posed, of each joint.
      joints: [N, 21, 3] wrist, then thumb, index, middle, ring, pinky, each from base to tip.
    """

    vertices: jax.Array
    transforms: jax.Array
    joints: jax.Array


def pose_hand(
    model: HandModel, pose: jax.Array, translation: jax.Array, shape: jax.Array | None = None
) -> PosedHand:
    """Poses a hand; differentiable everywhere, also where a joint does not turn.

    Args:
      model: pass it as an argument of a compiled function, never closed over.
      pose: [N, J, 3] axis-angles, rad; joint 0 turns the whole hand about the wrist.
      translation: [N, 3] meters, added last.
      shape: [S] or [N, S]; None is the template.
    """
    count = pose.shape[0]
    shape = _shape(model, shape, count)
    rotations = rotation_matrix(pose + jnp.asarray(model.pose_mean)[None])
    joints = _shaped(model.joints, model.joint_dirs, shape)
    transforms = _chain(model.parents, rotations, joints, translation)
    rest = jnp.concatenate(
        [
            _shaped(model.template, model.shape_dirs, shape)
            + _correction(model.pose_dirs, rotations),
            _shaped(model.tips, model.tip_dirs, shape)
            + _correction(model.tip_pose_dirs, rotations),
        ],
        axis=1,
    )
    weights = jnp.concatenate([jnp.asarray(model.weights), jnp.asarray(model.tip_weights)])
    posed = skin(rest, weights, transforms)
    vertices, tips = posed[:, :-5], posed[:, -5:]
    places = _apply(transforms, joints)
    return PosedHand(vertices, transforms, _in_order(places, tips, model.order))


def skin(points: jax.Array, weights: jax.Array, transforms: jax.Array) -> jax.Array:
    """Rest points [N, V, 3], weights [V, J] and transforms [N, J, 4, 4] -> posed [N, V, 3]."""
    flat = transforms[:, :, :3].reshape(*transforms.shape[:2], 12)
    blend = jnp.einsum("vj,njk->nvk", weights, flat, precision=HIGHEST)
    blend = blend.reshape(*blend.shape[:2], 3, 4)
    turned = jnp.einsum("nvab,nvb->nva", blend[..., :3], points, precision=HIGHEST)
    return turned + blend[..., 3]


def _shape(model: HandModel, shape: jax.Array | None, count: int) -> jax.Array:
    if shape is None:
        return jnp.zeros((count, model.shape_size))
    return jnp.broadcast_to(shape[None] if shape.ndim == 1 else shape, (count, model.shape_size))


def _shaped(points, dirs, shape: jax.Array) -> jax.Array:
    moved = jnp.einsum("ns,sva->nva", shape, jnp.asarray(dirs), precision=HIGHEST)
    return jnp.asarray(points)[None] + moved


def _correction(dirs, rotations: jax.Array) -> jax.Array:
    """Pose blend shapes [N, V, 3]; zero of a model without them."""
    dirs = jnp.asarray(dirs)
    bends = (rotations[:, 1:] - jnp.eye(3)[None, None]).reshape(len(rotations), -1)
    bends = bends[:, : dirs.shape[0]]
    return jnp.einsum("np,pva->nva", bends, dirs, precision=HIGHEST)


def _chain(parents, rotations, joints, translation) -> jax.Array:
    """[N, J, 4, 4]: each joint turns about its rest place, after all joints before it."""
    offset = joints - jnp.einsum("njab,njb->nja", rotations, joints, precision=HIGHEST)
    offset = offset.at[:, 0].add(translation)
    top = jnp.concatenate([rotations, offset[..., None]], axis=-1)
    last = jnp.broadcast_to(jnp.array([0.0, 0, 0, 1]), (*top.shape[:2], 1, 4))
    local = jnp.concatenate([top, last], axis=2)
    placed: list[jax.Array] = []
    for joint, parent in enumerate(parents):
        own = local[:, joint]
        if parent >= 0:
            own = jnp.matmul(placed[parent], own, precision=HIGHEST)
        placed.append(own)
    return jnp.stack(placed, axis=1)


def _apply(transforms: jax.Array, points: jax.Array) -> jax.Array:
    """[N, J, 4, 4] and [N, J, 3], each joint by its own."""
    turned = jnp.einsum("njab,njb->nja", transforms[..., :3, :3], points, precision=HIGHEST)
    return turned + transforms[..., :3, 3]


def _in_order(joints: jax.Array, tips: jax.Array, order: tuple[int, ...]) -> jax.Array:
    """16 joints in the field's order, with a tip after every third finger joint."""
    listed = joints[:, jnp.array(order)]
    fingers = listed[:, 1:].reshape(len(joints), 5, 3, 3)
    fingers = jnp.concatenate([fingers, tips[:, :, None]], axis=2)
    return jnp.concatenate([listed[:, :1], fingers.reshape(len(joints), 20, 3)], axis=1)
