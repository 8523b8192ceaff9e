"""Positional encoding: x, sin(2^0 x), cos(2^0 x), sin(2^1 x), … (Mildenhall et al. 2020, eq. 4).

There is no factor pi, as in IGR and its descendants, whose weights this order fits. Coarse-to-fine
weights (BARF, Lin et al. 2021, eq. 14) are an explicit function of the update.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hand_object.config import EncodingConfig


def encode(x: jax.Array, frequencies: int, weights: jax.Array | None = None) -> jax.Array:
    """[N, D] float32 -> [N, D + 2 D frequencies].

    Args:
      weights: [frequencies], multiplied to the octaves; None leaves them as they are.
    """
    if frequencies == 0:
        return x
    octaves = 2.0 ** jnp.arange(frequencies, dtype=x.dtype)
    angles = x[:, None, :] * octaves[None, :, None]
    waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=2)  # [N, octave, sin/cos, D]
    if weights is not None:
        waves = waves * weights[None, :, None, None]
    return jnp.concatenate([x, waves.reshape(len(x), -1)], axis=-1)


def octave_weights(step: jax.Array | int, config: EncodingConfig) -> jax.Array:
    """[frequencies] in 0..1: all 0 up to `coarse_until`, all 1 from `fine_from` on."""
    span = config.fine_from - config.coarse_until
    progress = (jnp.asarray(step, jnp.float32) - config.coarse_until) / span
    opened = config.frequencies * jnp.clip(progress, 0.0, 1.0)
    share = jnp.clip(opened - jnp.arange(config.frequencies), 0.0, 1.0)
    return 0.5 * (1.0 - jnp.cos(jnp.pi * share))
