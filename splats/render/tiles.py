"""Which Gaussians touch which tile: one flat list of pairs, sorted by tile, then by depth.

The list has a static capacity. Gaussians are sorted by depth once (their float bits, as int32, are
the key), expanded to the tile rows that their ellipse crosses, each row to the tiles of its span,
and the pairs are then sorted stably by tile. Equal depths keep the order of their index.

A tile is listed when the ellipse alpha = 1/255 reaches the box of its pixel centers (AccuTile of
Speedy-Splat, Hanson et al. 2024, with pixel centers in place of tile borders). The horizontal
extreme of an ellipse over a band of rows is a concave maximization, so it lies at the
unconstrained extreme clamped to the band: one evaluation per side.

Vocabulary: N Gaussians, R rows, P pair slots (the capacity, for rows too), T tiles.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from splats.render.projection import extent_level

# Pixels and fraction of the extent by which ellipses are widened, so that rounding drops no pixel.
WIDENING_PIXELS = 1e-3
WIDENING_FRACTION = 1e-4
PACKED_KEY_LIMIT = 2**32  # tile and slot share one unsigned word of 32 bits below it


class PairList(NamedTuple):
    """Pairs of (tile, Gaussian) in drawing order; integers only, nothing is differentiated."""

    pair_gaussian: jax.Array  # [P] int32; N in unused slots.
    tile_offsets: jax.Array  # [T + 1] int32: tile t owns slots [offsets[t], offsets[t + 1]).
    pairs_needed: jax.Array  # int32: capacity that this view needs.
    overflow: jax.Array  # bool: pairs_needed exceeded the capacity and the list is incomplete.


def build_pairs(
    means2d: jax.Array,
    conics: jax.Array,
    opacities: jax.Array,
    extents: jax.Array,
    depths: jax.Array,
    visible: jax.Array,
    *,
    grid: tuple[int, int],
    tile_size: int,
    capacity: int,
) -> PairList:
    """Builds the list of pairs of one view.

    Args:
      means2d: [N, 2] pixels.
      conics: [N, 3].
      opacities: [N] as composited (after compensation).
      extents: [N, 2] half sizes in pixels of the box around the ellipse.
      depths: [N]; positive where visible.
      visible: [N] bool.
      grid: number of tiles (y, x).
      tile_size: pixels.
      capacity: number of slots P.
    """
    tiles_y, tiles_x = grid
    count = means2d.shape[0]
    # The bits of positive floats, read as integers, are in the order of the floats, and integers
    # sort without care for NaN and -0.
    keys = jax.lax.bitcast_convert_type(depths.astype(jnp.float32), jnp.int32)
    # What is not visible comes last, and gets no rows below.
    keys = jnp.where(visible, keys, jnp.iinfo(jnp.int32).max)
    _, order = jax.lax.sort((keys, jnp.arange(count, dtype=jnp.int32)), num_keys=1, is_stable=True)
    ellipse = jnp.concatenate(
        [means2d, conics, extent_level(opacities)[:, None], _widen(extents)], axis=1
    )[order]

    first_row, last_row = _span(ellipse[:, 1], -ellipse[:, 7], ellipse[:, 7], tile_size, tiles_y)
    row_counts = jnp.where(visible[order], jnp.maximum(last_row - first_row + 1, 0), 0)
    row_owner, row_local, row_total = _expand(row_counts, capacity)
    row = first_row[row_owner] + row_local
    left, right = _row_extremes(ellipse[row_owner], row, tile_size)
    first_tile, last_tile = _span(ellipse[row_owner, 0], left, right, tile_size, tiles_x)
    used = jnp.arange(capacity) < row_total
    tile_counts = jnp.where(used, jnp.maximum(last_tile - first_tile + 1, 0), 0)

    pair_row, pair_local, pair_total = _expand(tile_counts, capacity)
    used = jnp.arange(capacity) < pair_total
    tile = row[pair_row] * tiles_x + first_tile[pair_row] + pair_local
    # Unused slots get a tile that does not exist, so that they are sorted behind all others.
    tile = jnp.where(used, tile, tiles_y * tiles_x)
    gaussian = jnp.where(used, order[row_owner[pair_row]], count)
    tile, gaussian = _sort_by_tile(tile, gaussian, tiles_y * tiles_x)
    # Unrolled, the search is one kernel on a GPU; the default is a loop with a wait per step.
    offsets = jnp.searchsorted(
        tile, jnp.arange(tiles_y * tiles_x + 1), side="left", method="scan_unrolled"
    )
    # Rows have as many slots as pairs, so that either may be what does not fit. Where rows were
    # cut, the pairs of the missing ones were never counted: more may be needed than is said here.
    needed = jnp.maximum(row_total, pair_total)
    return PairList(gaussian, offsets.astype(jnp.int32), needed, needed > capacity)


def _widen(extents):
    return extents * (1.0 + WIDENING_FRACTION) + WIDENING_PIXELS


def _span(center, low, high, tile_size, tiles):
    """First and last tile whose pixel centers may lie in [center + low, center + high]."""
    # Clipped before the conversion: a float beyond int32 has no defined integer.
    first_pixel = jnp.ceil(jnp.clip(center + low - 0.5, -1e6, 1e6))
    last_pixel = jnp.floor(jnp.clip(center + high - 0.5, -1e6, 1e6))
    first = jnp.floor(first_pixel / tile_size).astype(jnp.int32)
    last = jnp.floor(last_pixel / tile_size).astype(jnp.int32)
    # A span without any pixel center must stay empty after clipping to the image.
    last = jnp.where(last_pixel < first_pixel, first - 1, last)
    return jnp.maximum(first, 0), jnp.minimum(last, tiles - 1)


def _row_extremes(ellipse, row, tile_size):
    """Left- and rightmost x, relative to the mean, of the ellipses inside their rows of pixels."""
    _, mean_y, a, b, c, level, extent_x, extent_y = (ellipse[:, i] for i in range(8))
    top = row.astype(mean_y.dtype) * tile_size + 0.5 - mean_y
    bottom = top + (tile_size - 1)
    top, bottom = jnp.maximum(top, -extent_y), jnp.minimum(bottom, extent_y)

    def extreme(side):
        # The unconstrained extreme is at y = -side * (b / c) * extent_x.
        y = jnp.clip(-side * b / c * extent_x, top, jnp.maximum(top, bottom))
        # Widened extents are positive, so this never divides by 0.
        inside = jnp.maximum(1.0 - (y / extent_y) ** 2, 0.0)
        half_width = _widen(jnp.sqrt(level / a * inside))
        return -b / a * y + side * half_width

    return extreme(-1.0), extreme(1.0)


def _expand(counts, capacity):
    """For each of `capacity` slots its owner and its rank within the owner; and the slots needed.

    Slots are dealt in order: owner i gets counts[i] of them. Unused slots get the last owner.
    """
    ends = jnp.cumsum(counts)
    slots = jnp.arange(capacity, dtype=ends.dtype)
    starts = ends - counts
    # Mark each owner's first slot, then spread: owners with no slot are overwritten by the next.
    marks = jnp.zeros(capacity, jnp.int32)
    owners = jnp.arange(counts.shape[0], dtype=jnp.int32)
    targets = jnp.where(counts > 0, starts, capacity)
    marks = marks.at[targets].max(owners, mode="drop")
    owner = jax.lax.cummax(marks)
    return owner, (slots - starts[owner]).astype(jnp.int32), ends[-1]


def _sort_by_tile(tile, gaussian, tiles):
    """Stable sort by tile; one packed key where it fits 32 bits, which sorts three times faster."""
    slots = jnp.arange(tile.shape[0], dtype=jnp.uint32)
    if (tiles + 1) * tile.shape[0] < PACKED_KEY_LIMIT:
        # Slots make the keys unique: an unstable sort has the same result.
        packed = jax.lax.sort(
            tile.astype(jnp.uint32) * jnp.uint32(tile.shape[0]) + slots, is_stable=False
        )
        source = (packed % jnp.uint32(tile.shape[0])).astype(jnp.int32)
        return (packed // jnp.uint32(tile.shape[0])).astype(jnp.int32), gaussian[source]
    return jax.lax.sort((tile, gaussian), num_keys=1, is_stable=True)
