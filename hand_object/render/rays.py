"""Rays of cameras and where they cross simple bodies.

Cameras are OpenCV's: x right, y down, z forward; integer pixel coordinates are centers of pixels.
OpenGL cameras (y up, z backward) are turned once, at the border of the program, by `from_opengl`.
Depth z along a ray is in units of its unit direction. Letters: R rays.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

Interval = tuple[jax.Array, jax.Array]


def from_opengl(camera_to_world: jax.Array) -> jax.Array:
    """[..., 4, 4] of an OpenGL camera -> that of the same OpenCV camera."""
    turn = jnp.diag(jnp.array([1.0, -1.0, -1.0, 1.0]))
    return jnp.matmul(camera_to_world, turn, precision=jax.lax.Precision.HIGHEST)


def camera_rays(
    pixels: jax.Array, intrinsics: jax.Array, camera_to_world: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Origins and unit directions [R, 3] of pixels.

    Args:
      pixels: [R, 2] column and row.
      intrinsics: [3, 3], upper triangular.
      camera_to_world: [4, 4].
    """
    down = (pixels[:, 1] - intrinsics[1, 2]) / intrinsics[1, 1]
    right = (pixels[:, 0] - intrinsics[0, 2] - intrinsics[0, 1] * down) / intrinsics[0, 0]
    local = jnp.stack([right, down, jnp.ones_like(down)], axis=-1)
    local = local / jnp.linalg.norm(local, axis=-1, keepdims=True)
    rotation, position = camera_to_world[:3, :3], camera_to_world[:3, 3]
    directions = jnp.matmul(local, rotation.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.broadcast_to(position[None], directions.shape), directions


def sphere_interval(origins: jax.Array, directions: jax.Array, radius: float) -> Interval:
    """Depths [R] at which rays enter and leave a sphere at the origin; the entry is 0 or more.

    A ray that misses it gets an empty interval, both depths being that of its nearest point.
    """
    t_mid = -jnp.sum(origins * directions, axis=-1)
    p_mid = origins + t_mid[:, None] * directions
    square = radius**2 - jnp.sum(jnp.square(p_mid), axis=-1)
    half = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
    near = jnp.maximum(t_mid - half, 0.0)
    return near, jnp.maximum(t_mid + half, near)


def box_interval(
    origins: jax.Array, directions: jax.Array, low: jax.Array, high: jax.Array
) -> Interval:
    """Depths [R] at which rays enter and leave a box; empty (equal) where they miss it.

    Args:
      origins, directions: [R, 3]; directions of any length, whose unit the depths then have.
      low, high: [3] corners.
    """
    tiny = jnp.finfo(directions.dtype).tiny ** 0.5
    # A direction along a face never leaves the slab: a huge, finite depth says so.
    safe = jnp.where(jnp.abs(directions) < tiny, tiny, directions)
    first, second = (low[None] - origins) / safe, (high[None] - origins) / safe
    near = jnp.max(jnp.minimum(first, second), axis=-1)
    far = jnp.min(jnp.maximum(first, second), axis=-1)
    near = jnp.maximum(near, 0.0)
    hit = far > near
    return jnp.where(hit, near, 0.0), jnp.where(hit, far, 0.0)


def common(first: Interval, second: Interval) -> Interval:
    """The part of two intervals that both have; empty where there is none."""
    near = jnp.maximum(first[0], second[0])
    far = jnp.minimum(first[1], second[1])
    return jnp.where(far > near, near, 0.0), jnp.where(far > near, far, 0.0)
