"""Bilateral grids: a smooth color correction per training photograph.

Each photograph has a grid [L, Y, X, 12] of affine color transforms (3x4, row-major) over luma and
image position; a pixel takes the trilinear mixture of the eight transforms around it. The grids
absorb exposure and white balance, so that the Gaussians need not. Evaluation leaves them out.

Chen et al., "Real-time Edge-Aware Image Processing with the Bilateral Grid" (2007); Wang et al.,
"Bilateral Guided Radiance Field Processing" (2024), for radiance fields.

Vocabulary: V views, L, Y, X cells along luma (8), height (16) and width (16).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

CELLS = (8, 16, 16)  # luma, height, width, as in gsplat: coarse, so that no texture hides in it
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def identity_grids(views: int, cells: tuple[int, int, int] = CELLS) -> jax.Array:
    """Grids [V, L, Y, X, 12] that leave colors as they are."""
    identity = jnp.eye(3, 4).reshape(12)
    return jnp.broadcast_to(identity, (views, *cells, 12))


def _neighbors(position: jax.Array, cells: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Lower cell, upper cell and weight of the upper, for positions in [0, 1] (ends on cells)."""
    scaled = jnp.clip(position, 0.0, 1.0) * (cells - 1)
    # At the far end the upper cell would not exist: the last pair of cells, with weight 1 on it.
    lower = jnp.clip(jnp.floor(scaled).astype(jnp.int32), 0, max(cells - 2, 0))
    return lower, jnp.minimum(lower + 1, cells - 1), scaled - lower


def apply_grid(grid: jax.Array, image: jax.Array) -> jax.Array:
    """Colors after the correction.

    Args:
      grid: [L, Y, X, 12].
      image: [H, W, 3] in [0, 1]; values outside take the outermost luma cells.

    Returns:
      [H, W, 3], not clipped.
    """
    height, width, _ = image.shape
    luma = jnp.einsum("hwc,c->hw", image, jnp.asarray(LUMA), precision="highest")
    rows = (jnp.arange(height) + 0.5)[:, None] / height + jnp.zeros((1, width))
    columns = (jnp.arange(width) + 0.5)[None, :] / width + jnp.zeros((height, 1))
    axes = [
        _neighbors(position, cells)
        for position, cells in zip((luma, rows, columns), grid.shape[:3])
    ]
    affine = jnp.zeros((height, width, 12))
    # Bit k of the corner chooses the lower or the upper cell of axis k.
    for corner in range(8):
        bits = [(corner >> axis) & 1 for axis in range(3)]
        index = tuple(axes[axis][bit] for axis, bit in enumerate(bits))
        weight = jnp.ones((height, width))
        for axis, bit in enumerate(bits):
            weight = weight * (axes[axis][2] if bit else 1.0 - axes[axis][2])
        affine = affine + weight[:, :, None] * grid[index]
    affine = affine.reshape(height, width, 3, 4)
    linear = jnp.einsum("hwij,hwj->hwi", affine[..., :3], image, precision="highest")
    return linear + affine[..., 3]


def total_variation(grids: jax.Array) -> jax.Array:
    """Mean squared difference between neighboring cells, summed over the three grid axes.

    Args:
      grids: [V, L, Y, X, 12].
    """
    return sum(
        (jnp.mean(jnp.square(jnp.diff(grids, axis=axis))) for axis in (1, 2, 3)),
        jnp.zeros((), jnp.float32),
    )
