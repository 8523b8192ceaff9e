"""Rotations: unnormalised wxyz quaternions and the continuous 6D form, to matrices."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def normalised(vector: jax.Array) -> jax.Array:
    """Unit vectors along the last axis; a zero vector stays finite."""
    squared = jnp.sum(vector * vector, axis=-1, keepdims=True)
    return vector * jax.lax.rsqrt(jnp.maximum(squared, jnp.finfo(vector.dtype).tiny))


def quaternion_to_matrix(quats: jax.Array) -> jax.Array:
    """Rotation matrices [..., 3, 3] of quaternions wxyz [..., 4] of any length."""
    w, x, y, z = jnp.moveaxis(normalised(quats), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def six_to_matrix(six: jax.Array) -> jax.Array:
    """Rotation matrices [..., 3, 3] of the 6D form [..., 6] (Zhou et al. 2019, Gram-Schmidt).

    The two halves are the first two rows before orthogonalisation.
    """
    first = normalised(six[..., :3])
    rest = six[..., 3:]
    second = normalised(rest - jnp.sum(first * rest, axis=-1, keepdims=True) * first)
    return jnp.stack([first, second, jnp.cross(first, second)], axis=-2)
