"""Depths along rays: in strata, and by an inverse cumulative distribution. Shapes are static.

Letters: R rays, S samples, N new samples. Depths are sorted along the last axis. With a key they
are random (training), without one they are the middles of their strata (evaluation).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def strata(key: jax.Array | None, count: int, shape: tuple[int, ...]) -> jax.Array:
    """[*shape, count] sorted numbers in 0..1, one in each of `count` equal parts."""
    places = jnp.arange(count, dtype=jnp.float32)
    places = places.reshape((1,) * len(shape) + (count,))
    inside = 0.5 if key is None else jax.random.uniform(key, (*shape, count))
    return jnp.broadcast_to((places + inside) / count, (*shape, count))


def stratified(key: jax.Array | None, near: jax.Array, far: jax.Array, count: int) -> jax.Array:
    """[R] bounds -> [R, count] depths."""
    u = strata(key, count, near.shape)
    return near[:, None] + (far - near)[:, None] * u


def importance(
    key: jax.Array | None, edges: jax.Array, weights: jax.Array, count: int
) -> jax.Array:
    """[R, count] depths drawn from a density that is constant between edges.

    The inverse of the cumulative distribution is a sum of ramps, one per interval: no search and
    no reads at random places, which are slow on TPUs.

    Args:
      edges: [R, S + 1] sorted depths.
      weights: [R, S], not negative; where all are zero, intervals count alike.
    """
    total = jnp.sum(weights, axis=-1, keepdims=True)
    even = jnp.full_like(weights, 1.0 / weights.shape[-1])
    shares = jnp.where(total > 0, weights / jnp.where(total > 0, total, 1.0), even)
    upper = jnp.cumsum(shares, axis=-1)
    lower = upper - shares
    u = strata(key, count, total.shape[:1]) * upper[:, -1:]
    width = jnp.maximum(shares, jnp.finfo(shares.dtype).tiny)
    ramps = jnp.clip((u[:, :, None] - lower[:, None]) / width[:, None], 0.0, 1.0)
    lengths = jnp.diff(edges, axis=-1)
    return edges[:, :1] + jnp.sum(ramps * lengths[:, None], axis=-1)


def with_values(
    z: jax.Array, values: jax.Array, new_z: jax.Array, new_values: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Two sets of samples [R, S], [R, N] with a value each as one sorted set [R, S + N]."""
    both_z = jnp.concatenate([z, new_z], axis=-1)
    both = jnp.concatenate([values, new_values], axis=-1)
    sorted_z, sorted_values = jax.lax.sort((both_z, both), dimension=-1, num_keys=1)
    return sorted_z, sorted_values
