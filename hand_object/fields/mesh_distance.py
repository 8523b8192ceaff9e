"""Exact signed distances of points from a triangle mesh, by looking at every triangle.

The sign comes from the winding number (Jacobson et al. 2013), the sum of the solid angles of all
triangles over 4 pi: right near the surface where a mesh has a hole, such as a hand that ends at
the wrist. Letters: N points, F triangles.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from training.errors import InputError

CHUNK = 128  # points that are compared with all triangles at once
TINY = 1e-20


def mesh_triangles(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """[V, 3] and [F, 3] -> corners [F, 3, 3] float32, without triangles of no area.

    Raises:
      InputError: no triangle is left.
    """
    corners = np.asarray(vertices, np.float64)[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    kept = np.linalg.norm(normals, axis=-1) > 0
    if not kept.any():
        raise InputError("the template has no triangle with an area; give a mesh with faces")
    return corners[kept].astype(np.float32)


def mesh_distance(points: jax.Array, triangles: jax.Array) -> jax.Array:
    """[N, 3], [F, 3, 3] counterclockwise seen from outside -> [N], negative inside."""
    one = jax.vmap(_distance, in_axes=(0, None))
    padded = jnp.pad(points, ((0, -len(points) % CHUNK), (0, 0)))
    values = jax.lax.map(lambda x: one(x, triangles), padded.reshape(-1, CHUNK, 3))
    return values.reshape(-1)[: len(points)]


def _distance(point: jax.Array, triangles: jax.Array) -> jax.Array:
    a, b, c = (triangles[:, corner] - point[None] for corner in range(3))
    squares = jnp.minimum(
        jnp.minimum(_to_segment(a, b), _to_segment(b, c)),
        jnp.minimum(_to_segment(c, a), _to_plane(a, b, c)),
    )
    inside = jnp.sum(solid_angle(a, b, c)) > 2.0 * jnp.pi
    distance = jnp.sqrt(jnp.min(squares))
    return jnp.where(inside, -distance, distance)


def _to_segment(a: jax.Array, b: jax.Array) -> jax.Array:
    """[F] squared distances of the origin from segments."""
    edge = b - a
    share = -jnp.sum(a * edge, axis=-1) / jnp.maximum(jnp.sum(edge * edge, axis=-1), TINY)
    nearest = a + jnp.clip(share, 0.0, 1.0)[:, None] * edge
    return jnp.sum(nearest * nearest, axis=-1)


def _to_plane(a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
    """[F] squared distances of the origin from planes where its foot is in the triangle, or inf."""
    normal = jnp.cross(b - a, c - a)
    square = jnp.maximum(jnp.sum(normal * normal, axis=-1), TINY)
    foot = (jnp.sum(a * normal, axis=-1) / square)[:, None] * normal

    def left_of(p, q):
        return jnp.sum(jnp.cross(q - p, foot - p) * normal, axis=-1) >= 0

    within = left_of(a, b) & left_of(b, c) & left_of(c, a)
    return jnp.where(within, jnp.sum(foot * foot, axis=-1), jnp.inf)


def solid_angle(a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
    """[F] signed solid angles of triangles seen from the origin (Van Oosterom, Strackee 1983).

    Positive where the origin is behind the triangle, whose corners are counterclockwise in front.
    """
    la, lb, lc = (jnp.linalg.norm(corner, axis=-1) for corner in (a, b, c))
    volume = jnp.sum(a * jnp.cross(b, c), axis=-1)
    rest = (
        la * lb * lc
        + jnp.sum(a * b, axis=-1) * lc
        + jnp.sum(b * c, axis=-1) * la
        + jnp.sum(c * a, axis=-1) * lb
    )
    return 2.0 * jnp.arctan2(volume, rest)
