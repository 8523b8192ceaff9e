"""What all compositors share: the static plan, the packed rows, pixels and tiles.

Vocabulary: Q pixels of a tile, C channels, P pair slots, T tiles, N Gaussians; x, y are relative to
the tile's centre. A packed row holds mean x, y, conic a, b, c, opacity and the C colours of a pair.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

MAX_ALPHA = 0.99
MIN_ALPHA = 1.0 / 255.0
STOP_TRANSMITTANCE = 1e-4
GEOMETRY = 6  # Columns of a packed row before the colours.
MOMENTS = 6  # 1, x, y, x^2, x y, y^2.


class Plan(NamedTuple):
    """Static layout of a compositing run."""

    height: int
    width: int
    tile_size: int
    lanes: int
    chunk: int
    backend: str  # A resolved backend: never "auto".
    absolute: bool  # Also return sums of absolute screen gradients.

    @property
    def grid(self) -> tuple[int, int]:
        return -(-self.height // self.tile_size), -(-self.width // self.tile_size)


def pack(plan, means2d, conics, opacities, colors, pair_gaussian):
    """Rows [P + K, 6 + C] in pair order; the last K rows let a step read past the end."""
    table = jnp.concatenate([means2d, conics, opacities[:, None], colors], axis=1)
    rows = table.at[pair_gaussian].get(mode="fill", fill_value=0.0)
    return jnp.pad(rows, ((0, plan.chunk), (0, 0)))


def pixel_offsets(plan) -> tuple[np.ndarray, np.ndarray]:
    """x and y [Q] of the pixel centres of a tile, relative to the tile's centre."""
    axis = np.arange(plan.tile_size, dtype=np.float32) + 0.5 - plan.tile_size / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return x.reshape(-1), y.reshape(-1)


def moment_basis(plan) -> np.ndarray:
    x, y = pixel_offsets(plan)
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


def tile_centers(plan, tile):
    """x and y of the centres of the numbered tiles, in pixels."""
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
