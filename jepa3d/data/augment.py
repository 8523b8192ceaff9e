"""Normalization and augmentation on the device; pure, of one example, to be mapped over a batch.

The context and the target encoder see the same augmented volume: tokens at one index must show the
same tissue. There is no axial flip (retinas are never upside down) and no rotation through depth.

Vocabulary: D, H, W are the axes (B-scans, depth, fast scan). A resampling along one axis is a
matrix [out, in] of linear weights, so crop, flip and shift together cost three matrix products.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jepa3d.config import AugmentConfig


def normalize(volume: jax.Array, mean: jax.Array, std: jax.Array, sigma_floor: float) -> jax.Array:
    """Z-score with the statistics of the covered voxels.

    What the scan does not cover holds the volume's background gray and stays at its z-score. It is
    not set to 0: tokens that are exactly 0 make every LayerNorm multiply gradients by a thousand.

    Args:
      volume: uint8 [D, H, W].
      mean, std: float32 scalars of the covered voxels on the 0..1 scale, from the record.
      sigma_floor: lower bound of the divisor, so that a flat volume cannot blow up.

    Returns:
      float32 [D, H, W].
    """
    return (volume.astype(jnp.float32) / 255.0 - mean) / jnp.maximum(std, sigma_floor)


def augment(
    key: jax.Array,
    volume: jax.Array,
    foreground: jax.Array,
    covered: jax.Array,
    config: AugmentConfig,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One random view of a normalized volume.

    Args:
      key: PRNG key of this example.
      volume: float32 [D, H, W], normalized.
      foreground: bool [d, h, w] token mask of the retina.
      covered: bool [d, h, w] token mask of what the scan covers.
      config: ranges and strengths that are drawn from.

    Returns:
      The view, float32 [D, H, W], and its two token masks, moved along with it. What a shift brings
      in from beyond the volume repeats its edge and is not covered.
    """
    keys = jax.random.split(key, 6)
    maps = _axis_maps(keys[0], keys[1], keys[2], config)
    moved = _resample(volume, maps)
    # The maps are in relative coordinates, so they move a token grid as they move voxels.
    real = _resample(covered.astype(jnp.float32), maps) >= 0.5
    for axis, (size, (scale, offset)) in enumerate(zip(covered.shape, maps)):
        inside = jnp.abs(scale * _centers(size) + offset) <= 1.0
        real = real & jnp.expand_dims(inside, [a for a in range(3) if a != axis])
    tokens = (_resample(foreground.astype(jnp.float32), maps) >= 0.5) & real
    changed = _gray_levels(keys[3], moved, config)
    noise = 1.0 + config.speckle * jax.random.normal(keys[4], moved.shape)
    return changed * noise, tokens, real


def _axis_maps(
    flip_key: jax.Array, crop_key: jax.Array, shift_key: jax.Array, config: AugmentConfig
) -> tuple[tuple[jax.Array, jax.Array], ...]:
    """(scale, offset) of each axis: output u in (-1, 1) reads input scale * u + offset."""
    flips = jax.random.uniform(flip_key, (2,))
    draws = jax.random.uniform(crop_key, (4,))
    low, high = config.crop_scale
    area = low + (high - low) * draws[0]
    narrow, wide = config.crop_aspect
    # Uniform in the logarithm: a ratio and its inverse weigh the same.
    aspect = narrow * (wide / narrow) ** draws[1]
    pitch = jnp.minimum(jnp.sqrt(area * aspect), 1.0)
    lateral = jnp.minimum(jnp.sqrt(area / aspect), 1.0)
    # The crop lies anywhere inside the field.
    pitch_offset = (1.0 - pitch) * (2.0 * draws[2] - 1.0)
    lateral_offset = (1.0 - lateral) * (2.0 * draws[3] - 1.0)
    # Factor 2: the axis runs from -1 to 1, the setting is a share of the depth.
    shift = 2.0 * config.axial_shift * jax.random.uniform(shift_key, (), minval=-1.0, maxval=1.0)
    pitch_sign = jnp.where(flips[0] < config.pitch_flip, -1.0, 1.0)
    lateral_sign = jnp.where(flips[1] < config.lateral_flip, -1.0, 1.0)
    return (
        (pitch * pitch_sign, pitch_offset),
        (jnp.float32(1.0), shift),
        (lateral * lateral_sign, lateral_offset),
    )


def _resample(volume: jax.Array, maps: tuple[tuple[jax.Array, jax.Array], ...]) -> jax.Array:
    """Linear resampling along each axis in turn; outside the input the edge is repeated."""
    depth, height, width = volume.shape
    volume = jnp.einsum("ed,dhw->ehw", _linear_matrix(depth, *maps[0]), volume)
    volume = jnp.einsum("gh,dhw->dgw", _linear_matrix(height, *maps[1]), volume)
    return jnp.einsum("vw,dhw->dhv", _linear_matrix(width, *maps[2]), volume)


def _centers(size: int) -> jax.Array:
    """float32 [size]: where voxels or tokens lie along their axis, in (-1, 1)."""
    return (2.0 * jnp.arange(size) + 1.0) / size - 1.0


def _linear_matrix(size: int, scale: jax.Array, offset: jax.Array) -> jax.Array:
    """float32 [size, size]: row i holds the hat weights of the position that output i reads."""
    position = jnp.clip(
        ((scale * _centers(size) + offset + 1.0) * size - 1.0) / 2.0, 0.0, size - 1.0
    )
    return jnp.maximum(0.0, 1.0 - jnp.abs(position[:, None] - jnp.arange(size)[None, :]))


def _gray_levels(key: jax.Array, volume: jax.Array, config: AugmentConfig) -> jax.Array:
    """Contrast and gamma on z-scores: gamma bends around the mean and keeps the sign."""
    draws = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
    exponent = jnp.exp(config.gamma * draws[0])
    magnitude = jnp.maximum(jnp.abs(volume), 1e-6)
    bent = jnp.sign(volume) * magnitude**exponent
    return bent * (1.0 + config.contrast * draws[1])
