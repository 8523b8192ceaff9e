"""Rotary position encoding in three dimensions (RoPE-3D), both published variants.

A head of width h is split into three segments of k = 2·⌊⌊h/3⌋/2⌋ values for depth, height and
width; the rest stays untouched. In a segment with position p, ω_j = 10000^(-j/(k/2)), θ_j = p·ω_j:

    out = x · C + J(x) · S,    J(x)_{2i} = -x_{2i+1},  J(x)_{2i+1} = x_{2i}

`tiled` (V-JEPA 2): C = (cos θ, cos θ) one after the other, so the pair (2i, 2i+1) mixes two angles.
This is no rotation; it is a published bug that checkpoints depend on.
`interleaved` (V-JEPA 2.1): every θ_i twice in a row, a true rotation of each pair.

Tables and q, k are kept in *split-pair order*: the even members of all pairs, then the odd ones.
Attention logits do not change under a common permutation of q and k, and J becomes a swap of two
halves, which vectorizes on every backend where stride-2 shuffles do not.

Legend: N tokens of the grid, H heads, h head width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def segment_width(head_dim: int) -> int:
    """Values of a head that encode one axis; even."""
    return 2 * ((head_dim // 3) // 2)


def rope_tables(
    grid: tuple[int, int, int],
    head_dim: int,
    variant: str,
    reference_grid: int = 0,
    position_scale: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines for every token of the grid, in split-pair order.

    Args:
        grid: tokens along (depth, height, width).
        head_dim: width of a head, even.
        variant: "tiled" or "interleaved".
        reference_grid: if positive, height and width positions are multiplied by
            (reference_grid - 1) / (tokens - 1), so that any grid spans the same angles.
        position_scale: optional [batch, 3] factors on the positions along (depth, height, width),
            for example spacing in mm over a reference spacing.

    Returns:
        cos, sin: float32 [batch or 1, N, head_dim].
    """
    k = segment_width(head_dim)
    positions_Nx3 = _positions(grid, reference_grid)
    scale = jnp.ones((1, 3)) if position_scale is None else position_scale.astype(jnp.float32)
    positions_BxNx3 = positions_Nx3[None] * scale[:, None]
    # k is 0 for heads narrower than 6 values: nothing is encoded then.
    frequency = 10000.0 ** (-jnp.arange(k // 2, dtype=jnp.float32) / max(k // 2, 1))
    angle = positions_BxNx3[..., None] * frequency[None, None, None]
    if variant == "tiled":
        angle = jnp.concatenate([angle, angle], axis=-1)
    else:
        angle = jnp.repeat(angle, 2, axis=-1)
    angle = angle.reshape(*angle.shape[:2], 3 * k)
    # An angle of zero leaves the values beyond the three segments as they are.
    angle = jnp.pad(angle, ((0, 0), (0, 0), (0, head_dim - 3 * k)))
    angle = jnp.concatenate([angle[..., 0::2], angle[..., 1::2]], axis=-1)
    return jnp.cos(angle), jnp.sin(angle)


def _positions(grid: tuple[int, int, int], reference_grid: int) -> jax.Array:
    depth, height, width = (jnp.arange(n, dtype=jnp.float32) for n in grid)
    if reference_grid:
        height = height * ((reference_grid - 1) / max(grid[1] - 1, 1))
        width = width * ((reference_grid - 1) / max(grid[2] - 1, 1))
    axes = jnp.meshgrid(depth, height, width, indexing="ij")
    return jnp.stack(axes, axis=-1).reshape(-1, 3)


def split_pairs(columns: jax.Array, heads: int) -> jax.Array:
    """Reorders the last axis (heads · head width) to split-pair order within each head."""
    pairs = columns.reshape(*columns.shape[:-1], heads, -1, 2)
    return jnp.swapaxes(pairs, -1, -2).reshape(columns.shape)


def apply_rope(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Encodes positions into q or k.

    Args:
        x: [batch, tokens, heads, head_dim] in split-pair order, any float dtype.
        cos, sin: float32 [batch or 1, tokens, head_dim] of `rope_tables`.

    Returns:
        Same shape and dtype as `x`; computed in float32.
    """
    x32 = x.astype(jnp.float32)
    even, odd = jnp.split(x32, 2, axis=-1)
    swapped = jnp.concatenate([-odd, even], axis=-1)
    return (x32 * cos[:, :, None] + swapped * sin[:, :, None]).astype(x.dtype)
