"""Mask sets: which tokens the encoder sees and which the predictor must fill in.

The union of a few random boxes (full-depth tubes by default) is hidden, as in V-JEPA (Bardes et al.
2024, multi-block masking). The reference cuts all samples of a batch to the shortest list, which
drops the last slices of a volume and makes the masking ratio depend on the batch size. Here every
sample has exactly `context_tokens` visible and `target_tokens` predicted tokens, taken by use, and
within each kind at random:

* context: retina tokens that must stay visible, then covered tokens outside of the boxes, then
  padding (it shows nothing and is no answer), then tokens from inside of the boxes;
* targets, of what the context leaves: tokens inside of the boxes, then outside, then padding.
  Padding is a target only where nothing else is left, and then the loss gives it weight 0.

Most of an OCT volume is dark. With a foreground, boxes lie on the retina, retina tokens are
likelier targets, and a part of them always stays visible. Evaluation gives none, so that which
tokens are hidden tells nothing of the volume.

Everything runs on the device with static shapes; vmap over samples, one key per sample.

Legend: n boxes; D, H, W the token grid; N = D·H·W tokens.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from jepa3d.config import MaskConfig
from training.errors import ConfigError

Grid = tuple[int, int, int]

# Counts on the 16 x 24 x 24 grid, close to what the public recipe keeps after its truncation.
SHORT_RANGE = MaskConfig(blocks=8, spatial_scale=0.15, context_tokens=2048, target_tokens=2560)
LONG_RANGE = MaskConfig(blocks=2, spatial_scale=0.7, context_tokens=1024, target_tokens=2560)
MASK_PRESETS: dict[str, tuple[MaskConfig, ...]] = {
    "default": (SHORT_RANGE, LONG_RANGE),
    # A partition of the grid with 61 % masked.
    "mask06": (dataclasses.replace(SHORT_RANGE, context_tokens=3584, target_tokens=5632),),
}
PRESET_TOKENS = 16 * 24 * 24


def mask_preset(name: str, grid: Grid) -> tuple[MaskConfig, ...]:
    """A named list of mask sets with counts scaled to the grid.

    Raises:
        ConfigError: unknown name, or a grid too small for it.
    """
    if name not in MASK_PRESETS:
        raise ConfigError(f"masks preset {name!r} is unknown; choose one of {sorted(MASK_PRESETS)}")
    tokens = math.prod(grid)
    scaled = []
    for config in MASK_PRESETS[name]:
        context, target = (
            max(1, count * tokens // PRESET_TOKENS)
            for count in (config.context_tokens, config.target_tokens)
        )
        scaled.append(dataclasses.replace(config, context_tokens=context, target_tokens=target))
        check_masks(scaled[-1], grid)
    return tuple(scaled)


def check_masks(config: MaskConfig, grid: Grid) -> None:
    """Refuses counts that do not fit the grid.

    Raises:
        ConfigError: context and targets together exceed the tokens of the grid.
    """
    tokens = math.prod(grid)
    wanted = config.context_tokens + config.target_tokens
    if wanted > tokens:
        raise ConfigError(
            f"masks.context_tokens {config.context_tokens} + masks.target_tokens "
            f"{config.target_tokens} = {wanted} exceed the {tokens} tokens of grid {grid}; "
            "lower one of them"
        )


def sample_masks(
    key: jax.Array,
    grid: Grid,
    config: MaskConfig,
    foreground: jax.Array | None = None,
    covered: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Draws visible and predicted tokens of one sample.

    Args:
        key: PRNG key of this sample.
        grid: tokens along (depth, height, width).
        config: the mask set.
        foreground: optional bool or float [tokens], retina; the settings of the retina in
            `MaskConfig` act only with it.
        covered: optional bool [tokens], False for padding; None where the scan covers the grid.

    Returns:
        context_ids int32 [context_tokens] and target_ids int32 [target_tokens], both rising and
        without a common element.

    Raises:
        ConfigError: the counts do not fit the grid.
    """
    check_masks(config, grid)
    tokens = math.prod(grid)
    box_key, order_key = jax.random.split(key)
    # One draw: on a CPU each generator in a program takes a second to compile.
    noise_3xN = jax.random.uniform(order_key, (3, tokens))
    real = jnp.ones(tokens, bool) if covered is None else covered.reshape(-1)
    retina = jnp.zeros(tokens, bool) if foreground is None else foreground.reshape(-1) > 0.5
    retina = retina & real
    hidden = cover_counts(box_key, grid, config, foreground) > 0
    kept = _kept_retina(noise_3xN[0], retina, hidden, config)
    # Smallest first. Noise in [0, 1) orders at random within a kind.
    kind = jnp.where(kept, 0.0, jnp.where(~real, 2.0, jnp.where(hidden, 3.0, 1.0)))
    context_order = jnp.argsort(kind + noise_3xN[1])
    context = context_order[: config.context_tokens]
    visible = jnp.zeros(tokens, bool).at[context].set(True)
    # Largest last. U^(1/w) is largest with a probability in proportion to the weight w (Efraimidis
    # and Spirakis 2006, weighted sampling without replacement).
    weight = jnp.where(retina, config.retina_weight, 1.0)
    lot = noise_3xN[2] ** (1.0 / weight)
    kind = jnp.where(visible, -1.0, jnp.where(~real, 0.0, jnp.where(hidden, 2.0, 1.0)))
    target = jnp.argsort(kind + lot)[tokens - config.target_tokens :]
    return jnp.sort(context).astype(jnp.int32), jnp.sort(target).astype(jnp.int32)


def _kept_retina(
    noise: jax.Array, retina: jax.Array, hidden: jax.Array, config: MaskConfig
) -> jax.Array:
    """bool [tokens]: the retina tokens that stay visible, those outside of the boxes first."""
    wanted = jnp.ceil(config.retina_context * retina.sum())
    wanted = jnp.minimum(wanted, config.context_tokens)
    order = jnp.argsort(jnp.where(retina, hidden + noise, 9.0))
    place = jnp.zeros(retina.shape).at[order].set(jnp.arange(retina.size, dtype=jnp.float32))
    return retina & (place < wanted)


def cover_counts(
    key: jax.Array, grid: Grid, config: MaskConfig, foreground: jax.Array | None = None
) -> jax.Array:
    """How many boxes cover each token: float32 [tokens], token order."""
    size_key, place_key = jax.random.split(key)
    size_3 = _box_size(size_key, grid, config)
    start_nx3 = _box_starts(place_key, grid, config, size_3, foreground)
    inside = []
    for axis, length in enumerate(grid):
        index = jnp.arange(length)
        start = start_nx3[:, axis, None]
        inside.append((index[None] >= start) & (index[None] < start + size_3[axis]))
    # A box is a product of three intervals, so no array [n, D, H, W] need be built.
    depth, height, width = (indicator.astype(jnp.float32) for indicator in inside)
    return jnp.einsum("nd,nh,nw->dhw", depth, height, width).reshape(-1)


def _box_size(key: jax.Array, grid: Grid, config: MaskConfig) -> jax.Array:
    """One size for all boxes of a sample, int32 [3], within the grid."""
    depth_key, aspect_key = jax.random.split(key)
    low, high = config.temporal_scale
    share = jax.random.uniform(depth_key, minval=low, maxval=high) if low < high else high
    low, high = config.aspect_ratio
    aspect = jax.random.uniform(aspect_key, minval=low, maxval=high)
    area = math.floor(grid[1] * grid[2] * config.spatial_scale)
    size = jnp.stack(
        [
            jnp.floor(jnp.asarray(grid[0] * share, jnp.float32)),
            jnp.round(jnp.sqrt(area * aspect)),
            jnp.round(jnp.sqrt(area / aspect)),
        ]
    )
    return jnp.clip(size.astype(jnp.int32), 1, jnp.asarray(grid))


def _box_starts(
    key: jax.Array, grid: Grid, config: MaskConfig, size_3: jax.Array, foreground: jax.Array | None
) -> jax.Array:
    """First token of each box along each axis, int32 [n, 3]; boxes stay inside the grid."""
    room_3 = jnp.asarray(grid) - size_3
    if config.foreground_floor > 0 and foreground is not None:
        # The floor keeps the logarithm finite for tokens without foreground.
        logits = jnp.log(config.foreground_floor + foreground.reshape(-1))
        center = jax.random.categorical(key, logits, shape=(config.blocks,))
        center_nx3 = jnp.stack(jnp.unravel_index(center, grid), axis=-1)
        return jnp.clip(center_nx3 - size_3[None] // 2, 0, room_3[None])
    uniform = jax.random.uniform(key, (config.blocks, 3))
    start = jnp.floor(uniform * (room_3 + 1)[None]).astype(jnp.int32)
    # Boxes stay inside of the grid whatever the rounding of the product.
    return jnp.minimum(start, room_3[None])
