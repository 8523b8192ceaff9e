"""What all compositors share: the static plan, the packed rows, pixels and tiles.

Vocabulary: Q pixels of a tile, C channels, P pair slots, T tiles, N Gaussians; x, y are relative to
the tile's center. A packed row holds mean x, y, conic a, b, c, opacity and the C colors of a pair.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

# The three numbers of Kerbl et al. (2023) and gsplat; images differ visibly with others.
MAX_ALPHA = 0.99  # the derivative divides by 1 - alpha
MIN_ALPHA = 1.0 / 255.0  # less changes no pixel of 8 bits
STOP_TRANSMITTANCE = 1e-4  # what lies behind cannot be seen
GEOMETRY = 6  # Columns of a packed row before the colors.
MOMENTS = 6  # 1, x, y, x^2, x y, y^2.


class Plan(NamedTuple):
    """Static layout of a compositing run."""

    height: int
    width: int
    channels: int
    tile_size: int
    lanes: int
    chunk: int
    backend: str  # A resolved backend: never "auto".
    absolute: bool  # Also return sums of absolute screen gradients.

    @property
    def grid(self) -> tuple[int, int]:
        return -(-self.height // self.tile_size), -(-self.width // self.tile_size)


def pack(plan, means2d, conics, opacities, colors, pair_gaussian):
    """Rows [P + K, 6 + C] in pair order; the last K rows let a step read past the end.

    For the GPU kernels rows are filled up to a multiple of 4 columns, which lets the compiler read
    16 bytes at once.
    """
    table = jnp.concatenate([means2d, conics, opacities[:, None], colors], axis=1)
    if plan.backend != "xla":
        table = jnp.pad(table, ((0, 0), (0, -table.shape[1] % 4)))
    # Unused slots ask for row N, which does not exist: an opacity of 0, which is skipped.
    rows = table.at[pair_gaussian].get(mode="fill", fill_value=0.0)
    return jnp.pad(rows, ((0, plan.chunk), (0, 0)))


def align_pairs(pair_gaussian, tile_offsets, count: int, unit: int):
    """Pair list and offsets in which every tile owns a multiple of `unit` slots.

    Returns [P + T (unit - 1)] rounded up to `unit`, with `count` (no Gaussian) in the filling, and
    [T + 1] multiples of `unit`.
    """
    tiles, capacity = tile_offsets.shape[0] - 1, pair_gaussian.shape[0]
    owned = tile_offsets[1:] - tile_offsets[:-1]
    aligned = jnp.pad(jnp.cumsum(-(-owned // unit) * unit), (1, 0)).astype(jnp.int32)
    slots = jnp.arange(-(-(capacity + tiles * (unit - 1)) // unit) * unit, dtype=jnp.int32)
    # Unrolled: on a GPU the default is a loop that waits for the device at each of its steps.
    owner = jnp.searchsorted(aligned, slots, side="right", method="scan_unrolled") - 1
    tile = jnp.clip(owner, 0, tiles - 1)
    rank = slots - aligned[tile]
    listed = pair_gaussian.at[tile_offsets[tile] + rank].get(mode="clip")
    return jnp.where(rank < owned[tile], listed, count), aligned


def pixel_offsets(plan) -> tuple[np.ndarray, np.ndarray]:
    """x and y [Q] of the pixel centers of a tile, relative to the tile's center."""
    axis = np.arange(plan.tile_size, dtype=np.float32) + 0.5 - plan.tile_size / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return x.reshape(-1), y.reshape(-1)


def moment_basis(plan) -> np.ndarray:
    """[Q, 6]: what the pixels of a tile are multiplied with to get the moments of their values."""
    x, y = pixel_offsets(plan)
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


def tile_centers(plan, tile):
    """x and y of the centers of the numbered tiles, in pixels."""
    columns, half = plan.grid[1], plan.tile_size / 2
    x = (tile % columns).astype(jnp.float32) * plan.tile_size + half
    y = (tile // columns).astype(jnp.float32) * plan.tile_size + half
    return x, y


def to_image(plan, tiles):
    """[T, C, Q] -> [height, width, C], cropped."""
    rows, columns = plan.grid
    size, channels = plan.tile_size, tiles.shape[1]
    blocks = tiles.reshape(rows, columns, channels, size, size)
    image = blocks.transpose(0, 3, 1, 4, 2).reshape(rows * size, columns * size, channels)
    return image[: plan.height, : plan.width]


def to_tiles(plan, image):
    """[height, width, C] -> [T, C, Q], zero outside of the image."""
    rows, columns = plan.grid
    size, channels = plan.tile_size, image.shape[-1]
    padding = ((0, rows * size - plan.height), (0, columns * size - plan.width), (0, 0))
    blocks = jnp.pad(image, padding).reshape(rows, size, columns, size, channels)
    return blocks.transpose(0, 2, 4, 1, 3).reshape(rows * columns, channels, size * size)
