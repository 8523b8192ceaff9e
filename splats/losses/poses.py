"""Small corrections of the camera poses, learned with the scene.

A correction is 9 numbers per training view: a translation in the camera's own axes, and a rotation
as the offset of the continuous 6D form (Zhou et al. 2019) from the identity. It acts on the camera
side: camera_to_world' = camera_to_world @ [R | t].
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from splats.render.unit_vectors import unit_vectors

# The first two rows of the identity: an offset of zero is no rotation.
IDENTITY_SIX = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def no_corrections(views: int) -> jax.Array:
    """float32 [views, 9]: translation (3), then the 6D offset."""
    return jnp.zeros((views, 9))


def six_to_matrix(six: jax.Array) -> jax.Array:
    """Rotation [3, 3] whose first two rows are the two halves of `six` [6], orthonormalized."""
    first = unit_vectors(six[:3])
    second = six[3:] - jnp.sum(first * six[3:]) * first
    second = unit_vectors(second)
    return jnp.stack([first, second, jnp.cross(first, second)])


def corrected(world_to_camera: jax.Array, correction: jax.Array) -> jax.Array:
    """The world-to-camera matrix [4, 4] after a correction [9]."""
    rotation = six_to_matrix(correction[3:] + jnp.asarray(IDENTITY_SIX))
    # The inverse of [R | t] is [R^T | -R^T t], and it is applied on the left.
    moved = -jnp.einsum("ji,j->i", rotation, correction[:3], precision="highest")
    top = jnp.concatenate([rotation.T, moved[:, None]], axis=1)
    inverse = jnp.concatenate([top, jnp.asarray([[0.0, 0.0, 0.0, 1.0]])])
    return jnp.matmul(inverse, world_to_camera, precision="highest")
