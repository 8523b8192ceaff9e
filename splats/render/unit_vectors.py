"""Unit vectors with a derivative everywhere."""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Shorter vectors (1e-12) have no direction and count as zero. The derivative of the root holds the
# power -1.5 of the square, 1e36 here: much shorter ones would leave float32.
SMALLEST_SQUARE = 1e-24


def unit_vectors(vectors: jax.Array) -> jax.Array:
    """`vectors` [..., D] divided by their length; the zero vector stays zero with zero gradient.

    The length is replaced *before* the root is taken: `where` after it would still hand the
    infinite derivative of the root at 0 back, and infinity times 0 is NaN.
    """
    squared = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
    is_zero = squared < SMALLEST_SQUARE
    return vectors * jnp.where(is_zero, 0.0, jax.lax.rsqrt(jnp.where(is_zero, 1.0, squared)))
