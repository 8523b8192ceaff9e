"""From a point of the posed hand to the rest pose (inverse skinning).

Each joint has a transform T, rest -> posed (meters). A point near the hand takes a blend of them,
with the skinning weights of what is near to it: of the posed vertices (softmax of the squared
distance over all of them) or of bone capsules (softmax of the distance; few of them, so that small
fields are not dominated by skinning). The weights are constants to the gradient, as in HOLD; poses
learn through the transforms.

Letters: N points, V vertices, J joints, C capsules. All functions are of one frame.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

HIGHEST = jax.lax.Precision.HIGHEST
LEAST_DETERMINANT = 1e-3  # of a blend; opposite rotations far from the hand cancel each other


class Capsules(NamedTuple):
    """Bones in the rest pose: starts, ends [C, 3] and radii [C] in meters, joint [C] of each."""

    starts: jax.Array
    ends: jax.Array
    radii: jax.Array
    joint: jax.Array


def vertex_weights(
    x: jax.Array, vertices: jax.Array, weights: jax.Array, softness: float
) -> tuple[jax.Array, jax.Array]:
    """Weights [N, J] and distance to the nearest vertex [N], meters.

    Args:
      x: [N, 3] posed.
      vertices: [V, 3] posed.
      weights: [V, J] of the hand model.
      softness: meters over which vertices are blended.
    """
    # |x|^2 - 2 x.v + |v|^2 cancels badly far from the origin.
    center = jnp.mean(vertices, axis=0, keepdims=True)
    x, vertices = x - center, vertices - center
    squares = (
        jnp.sum(jnp.square(x), axis=-1)[:, None]
        + jnp.sum(jnp.square(vertices), axis=-1)[None]
        - 2.0 * jnp.matmul(x, vertices.T, precision=HIGHEST)
    )
    least = jnp.maximum(jnp.min(squares, axis=-1, keepdims=True), 0.0)
    near = jnp.exp((least - squares) / softness**2)
    blended = jnp.matmul(near, weights, precision=HIGHEST)
    blended = blended / jnp.sum(near, axis=-1, keepdims=True)
    return jax.lax.stop_gradient(blended), jax.lax.stop_gradient(jnp.sqrt(least[:, 0]))


def capsule_weights(
    x: jax.Array, capsules: Capsules, transforms: jax.Array, softness: float
) -> tuple[jax.Array, jax.Array]:
    """Weights [N, J] and signed distance to the nearest capsule [N], meters.

    Args:
      x: [N, 3] posed.
      capsules: in the rest pose.
      transforms: [J, 4, 4] rest -> posed.
      softness: meters over which bones are blended.
    """
    distance = capsule_distances(x, posed_capsules(capsules, transforms))
    near = jax.nn.softmax(-distance / softness, axis=-1)
    owner = jax.nn.one_hot(capsules.joint, len(transforms), dtype=near.dtype)
    weights = jnp.matmul(near, owner, precision=HIGHEST)
    return jax.lax.stop_gradient(weights), jax.lax.stop_gradient(jnp.min(distance, axis=-1))


def posed_capsules(capsules: Capsules, transforms: jax.Array) -> Capsules:
    """The capsules where their joints put them."""
    own = transforms[capsules.joint]

    def move(points):
        turned = jnp.einsum("cij,cj->ci", own[:, :3, :3], points, precision=HIGHEST)
        return turned + own[:, :3, 3]

    return capsules._replace(starts=move(capsules.starts), ends=move(capsules.ends))


def capsule_distances(x: jax.Array, capsules: Capsules) -> jax.Array:
    """[N, C] signed distances of points [N, 3] from capsules in the same pose."""
    bone = capsules.ends - capsules.starts
    square = jnp.maximum(jnp.sum(jnp.square(bone), axis=-1), 1e-12)
    from_start = x[:, None] - capsules.starts[None]
    along = jnp.clip(jnp.sum(from_start * bone[None], axis=-1) / square[None], 0.0, 1.0)
    across = from_start - along[..., None] * bone[None]
    # The root of a sum of squares has no derivative on the bone itself.
    lengths = jnp.sqrt(jnp.sum(jnp.square(across), axis=-1) + 1e-12)
    return lengths - capsules.radii[None]


def unskin(x: jax.Array, weights: jax.Array, transforms: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rest points [N, 3] and the inverses [N, 3, 3] of the blends, d rest / d posed.

    Args:
      x: [N, 3] posed, meters.
      weights: [N, J].
      transforms: [J, 4, 4] rest -> posed.
    """
    flat = transforms[:, :3].reshape(len(transforms), 12)
    blend = jnp.matmul(weights, flat, precision=HIGHEST).reshape(-1, 3, 4)
    inverse = inverse3(blend[:, :, :3])
    moved = x - blend[:, :, 3]
    return jnp.einsum("nij,nj->ni", inverse, moved, precision=HIGHEST), inverse


def inverse3(matrices: jax.Array) -> jax.Array:
    """[N, 3, 3] -> inverses by cofactors; finite where the determinant vanishes."""
    a, b, c = (matrices[:, :, column] for column in range(3))
    rows = jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)], axis=1)
    determinant = jnp.sum(a * rows[:, 0], axis=-1)
    safe = jnp.where(jnp.abs(determinant) < LEAST_DETERMINANT, LEAST_DETERMINANT, determinant)
    return rows / safe[:, None, None]
