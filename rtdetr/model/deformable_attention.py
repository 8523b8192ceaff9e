"""Multi-scale deformable attention: each query samples a few points of each map (Zhu et al. 2021).

A point is read bilinearly, and outside of a map it is 0. Pixel centers lie at half integers
(PyTorch's `align_corners=False`). Three ways to the same numbers:

* `gather`: four reads a point; the fastest on CPU and GPU;
* `packed`: every pixel carries its 2 × 2 neighborhood, so that a point is one read of four times
  the channels, which fills the lanes of a TPU;
* `onehot`: weights of a point over all rows and columns, then a matrix product; neither gather nor
  scatter, for small maps on a TPU.

Legend: B batch, N tokens of a map (rows h, columns w), H heads, d channels of a head, Q queries,
P points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from training.mesh import platform

Size = tuple[int, int]
# Larger maps are gathered from on a TPU too: their weights over all pixels would fill its memory.
LARGEST_ONEHOT = 2048  # tokens


def sample_maps(
    values: Sequence[jax.Array],
    sizes: Sequence[Size],
    locations: Sequence[jax.Array],
    weights: Sequence[jax.Array],
    method: str = "auto",
) -> jax.Array:
    """Weighted sum of the sampled values over all maps and points, `[B, Q, H, d]`.

    Args:
      values: of each map, `[B, N, H, d]`, row by row.
      sizes: (height, width) of each map.
      locations: of each map, `[B, Q, H, P, 2]` fp32, (x, y) over the sides of the map.
      weights: of each map, `[B, Q, H, P]` fp32.
      method: "gather", "packed", "onehot" or "auto".
    """
    samplers = (sampler(method, size) for size in sizes)
    parts = [f(v, s, x, w) for f, v, s, x, w in zip(samplers, values, sizes, locations, weights)]
    return sum(parts[1:], parts[0])


def sampler(method: str, size: Size) -> Callable[..., jax.Array]:
    """The function of a method; "auto" chooses by platform and size of the map."""
    if method == "auto":
        if platform() != "tpu":
            method = "gather"
        else:
            method = "packed" if size[0] * size[1] > LARGEST_ONEHOT else "onehot"
    return {"gather": _gather, "packed": _packed, "onehot": _onehot}[method]


def _corner(size: Size, locations: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Column and row (int32) of the pixel up left of a point, and how far past it the point is."""
    height, width = size
    x = locations[..., 0] * width - 0.5
    y = locations[..., 1] * height - 0.5
    # Far outside everything is 0; the bound keeps floor() inside of int32.
    x, y = jnp.clip(x, -2, width + 1), jnp.clip(y, -2, height + 1)
    left, top = jnp.floor(x), jnp.floor(y)
    return left.astype(jnp.int32), top.astype(jnp.int32), x - left, y - top


def _by_head(x: jax.Array) -> jax.Array:
    """`[B, Q, H, P]` as `[B, H, Q * P]`."""
    batch, queries, heads, points = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, heads, queries * points)


def _weighted_sum(rows: jax.Array, weights: jax.Array) -> jax.Array:
    """`[B, H, Q * P, d]` and `[B, Q, H, P]` to `[B, Q, H, d]`."""
    batch, queries, heads, points = weights.shape
    rows = rows.reshape(batch, heads, queries, points, -1)
    return jnp.einsum("bhqpd,bqhp->bqhd", rows, weights.astype(rows.dtype))


def _gather(values: jax.Array, size: Size, locations: jax.Array, weights: jax.Array) -> jax.Array:
    height, width = size
    batch, tokens, heads, channels = values.shape
    left, top, right_share, low_share = _corner(size, locations)
    head = jnp.arange(heads).reshape(1, 1, heads, 1)
    rows, shares = [], []
    for down in (0, 1):
        for across in (0, 1):
            column, row = left + across, top + down
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            token = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
            share = (right_share if across else 1 - right_share) * (
                low_share if down else 1 - low_share
            )
            rows.append(token * heads + head)
            shares.append(jnp.where(inside, share * weights, 0.0))
    # Rows are read from where they lie: no map is transposed, and all four are one read.
    row = jnp.stack(rows, axis=-1).reshape(batch, -1)
    read = _rows(values.reshape(batch, tokens * heads, channels), row)
    read = read.reshape(*weights.shape[:3], -1, channels)
    share = jnp.stack(shares, axis=-1).reshape(*weights.shape[:3], -1)
    return jnp.einsum("bqhpd,bqhp->bqhd", read, share.astype(read.dtype))


@jax.vmap
def _rows(table: jax.Array, index: jax.Array) -> jax.Array:
    """Rows of `[rows, d]`; none is outside. Image by image, so that devices need not talk."""
    return table.at[index].get(mode="promise_in_bounds")


def _packed(values: jax.Array, size: Size, locations: jax.Array, weights: jax.Array) -> jax.Array:
    height, width = size
    batch, _, heads, channels = values.shape
    left, top, right_share, low_share = _corner(size, locations)
    # One row and column of zeros around the map: pixel (-1, -1) has the index 0.
    grid = values.transpose(0, 2, 1, 3).reshape(batch, heads, height, width, channels)
    grid = jnp.pad(grid, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    near = [
        grid[:, :, down : down + height + 1, across : across + width + 1]
        for down in (0, 1)
        for across in (0, 1)
    ]
    packed = jnp.concatenate(near, axis=-1).reshape(batch, heads, -1, 4 * channels)
    inside = (left >= -1) & (left < width) & (top >= -1) & (top < height)
    index = jnp.clip(top + 1, 0, height) * (width + 1) + jnp.clip(left + 1, 0, width)
    rows = jnp.take_along_axis(packed, _by_head(index)[..., None], axis=2)
    weights = jnp.where(inside, weights, 0.0)
    shares = [
        (low_share if down else 1 - low_share) * (right_share if across else 1 - right_share)
        for down in (0, 1)
        for across in (0, 1)
    ]
    parts = jnp.split(rows, 4, axis=-1)
    return sum(
        (_weighted_sum(part, share * weights) for part, share in zip(parts[1:], shares[1:])),
        _weighted_sum(parts[0], shares[0] * weights),
    )


def _onehot(values: jax.Array, size: Size, locations: jax.Array, weights: jax.Array) -> jax.Array:
    height, width = size
    x = locations[..., 0] * width - 0.5
    y = locations[..., 1] * height - 0.5
    # The hat function of each point over all columns and rows: [B, Q, H, P, w or h].
    columns, rows = (jnp.arange(side).reshape(1, 1, 1, 1, -1) for side in (width, height))
    across = jnp.maximum(0.0, 1 - jnp.abs(x[..., None] - columns))
    down = jnp.maximum(0.0, 1 - jnp.abs(y[..., None] - rows))
    down = down * weights[..., None]
    every = jnp.einsum("bqhpy,bqhpx->bhqyx", down.astype(values.dtype), across.astype(values.dtype))
    batch, queries, heads = weights.shape[:3]
    flat = every.reshape(batch, heads, queries, height * width)
    return jnp.einsum("bhqn,bnhd->bqhd", flat, values)
