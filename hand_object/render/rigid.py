"""Rotations and similarities: how a rigid object lies in the scene.

A similarity maps x -> scale * rotation x + translation. Rotations are axis-angles (rad) in tables
and matrices inside. Letters: F frames, N points.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

HIGHEST = jax.lax.Precision.HIGHEST


class Similarity(NamedTuple):
    """Canonical -> scene, per frame: scale [F], rotation [F, 3, 3], translation [F, 3]."""

    scale: jax.Array
    rotation: jax.Array
    translation: jax.Array


def rotation_matrix(axis_angle: jax.Array) -> jax.Array:
    """[F, 3] rad -> [F, 3, 3] (Rodrigues), with finite derivatives at no rotation.

    sin(a) / a and (1 - cos(a)) / a^2 are taken as series of a^2 near zero.
    """
    square = jnp.sum(jnp.square(axis_angle), axis=-1)
    small = square < 1e-4
    safe = jnp.where(small, 1.0, square)
    angle = jnp.sqrt(safe)
    first = jnp.where(small, 1.0 - square / 6.0 + square**2 / 120.0, jnp.sin(angle) / angle)
    second = jnp.where(
        small, 0.5 - square / 24.0 + square**2 / 720.0, 2.0 * jnp.square(jnp.sin(angle / 2)) / safe
    )
    x, y, z = jnp.moveaxis(axis_angle, -1, 0)
    zero = jnp.zeros_like(x)
    cross = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1)
    cross = cross.reshape(*axis_angle.shape[:-1], 3, 3)
    twice = jnp.matmul(cross, cross, precision=HIGHEST)
    identity = jnp.broadcast_to(jnp.eye(3, dtype=axis_angle.dtype), cross.shape)
    return identity + first[..., None, None] * cross + second[..., None, None] * twice


def object_similarity(
    axis_angle: jax.Array,
    translation: jax.Array,
    object_scale: jax.Array,
    scene_scale: jax.Array,
    center: jax.Array,
    radius: jax.Array,
) -> Similarity:
    """Canonical -> raw object (times radius, plus center) -> meters -> scene (HOLD's chain).

    Args:
      axis_angle, translation: [F, 3] of each frame, rad and meters.
      object_scale: [] meters per raw unit.
      scene_scale: [] scene units per meter.
      center, radius: [3] and [] of the object in its raw units.
    """
    rotation = rotation_matrix(axis_angle)
    moved = object_scale * _apply(rotation, center[None, None])[:, 0] + translation
    scale = jnp.broadcast_to(scene_scale * object_scale * radius, (len(rotation),))
    return Similarity(scale, rotation, scene_scale * moved)


def to_scene(pose: Similarity, x: jax.Array) -> jax.Array:
    """[F, N, 3] canonical -> scene."""
    return pose.scale[:, None, None] * _apply(pose.rotation, x) + pose.translation[:, None]


def to_canonical(pose: Similarity, x: jax.Array) -> jax.Array:
    """[F, N, 3] scene -> canonical, by the inverse in closed form."""
    return directions_to_canonical(pose, x - pose.translation[:, None])


def directions_to_canonical(pose: Similarity, d: jax.Array) -> jax.Array:
    """[F, N, 3] differences of scene points -> canonical; lengths change with the scale."""
    return _apply(jnp.swapaxes(pose.rotation, -1, -2), d) / pose.scale[:, None, None]


def _apply(matrices: jax.Array, x: jax.Array) -> jax.Array:
    """[F, 3, 3] and [F or 1, N, 3] -> [F, N, 3]."""
    x = jnp.broadcast_to(x, (len(matrices), *x.shape[1:]))
    return jnp.einsum("fij,fnj->fni", matrices, x, precision=HIGHEST)
