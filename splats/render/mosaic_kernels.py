"""Bodies of the GPU kernels: one program composites one tile, or differentiates it.

A program is a warpgroup of 128 threads, two pixels per thread. It walks its tile's pairs front to
back in chunks of K and leaves when every pixel has stopped. Transmittance is a recurrence here, so
the walk needs neither running products nor storage of intermediate states; everything else is as
in `tile_loop`.

The derivative needs sums over the tile's pixels for each pair. Summing pair by pair would be a
chain of shuffles and barriers for each of the 6 + C sums. Instead, a chunk has two phases. First
each thread walks the K pairs for its pixels and leaves dL/dsigma and the weight of each in shared
memory [K, Q]. Then threads own pairs: the same memory is read back as blocks [K, 16] of one row of
pixels, with eight threads per pair, so that a sum is some additions in registers and, once a chunk,
three shuffles. y is constant in such a block and x the same in all: three accumulators give the six
moments.

Barriers are explicit (automatic ones would come twice per store): one between writing and reading
shared memory and one before it is written again. Global memory is either read or written, never
both.

The same bodies run in Pallas' interpreter, where layouts and barriers mean nothing.

Vocabulary: Q pixels of a tile, C channels, K pairs of a chunk, T tiles, P pair slots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from splats.render import layout

TILE = 16  # Pixels, side of a tile.
GRID = "program"  # Name of the grid's only axis.
CHUNK = 16  # Pairs per chunk; every tile owns a multiple of it.
# A row of shared memory is longer than a tile by 16 words, so that the two pairs that half a warp
# reads at once lie in different banks.
ROW = TILE * TILE + 16
# Blocks [K, 16]: four pairs per warp, eight threads per pair, two neighboring pixels per thread.
BLOCK = plgpu.Layout.TILED(
    plgpu.Tiling(((CHUNK, TILE), (CHUNK // 4, TILE), (2,))),
    warp_dims=(-5,),
    lane_dims=(-3, -2),
    vector_dim=-1,
)


class Program(NamedTuple):
    """What is static about a kernel."""

    channels: int
    columns: int  # Tiles in a row of the image.
    absolute: bool
    interpret: bool

    def index(self):
        """Which of the programs this is."""
        return pl.program_id(0) if self.interpret else jax.lax.axis_index(GRID)

    def load(self, ref, index, axes: tuple[int, ...] = ()):
        """Loads [K, 16], or a vector of it without `axes`, spread over threads as `BLOCK`."""
        if self.interpret:
            return ref[index]
        chosen = BLOCK.reduce(axes) if axes else BLOCK
        return plgpu.load(ref, index, layout=chosen, optimized=False)

    def block(self, value):
        """Spreads a value over the threads as `BLOCK`."""
        value = jnp.broadcast_to(value, (CHUNK, TILE)) if value.ndim == 0 else value
        return value if self.interpret else plgpu.layout_cast(value, BLOCK)

    def spread(self, vector, axis: int):
        """[K, 16] from its values along one axis."""
        return self.block(jax.lax.broadcast_in_dim(vector, (CHUNK, TILE), (axis,)))

    def no_pairs(self):
        """Zeros [K], spread as the sums are."""
        zeros = jnp.zeros(CHUNK, jnp.float32)
        return zeros if self.interpret else plgpu.layout_cast(zeros, BLOCK.reduce(1))

    def barrier(self) -> None:
        if not self.interpret:
            plgpu.commit_smem()

    def tile_center(self, tile):
        x = (tile % self.columns).astype(jnp.float32) * TILE + TILE / 2
        y = (tile // self.columns).astype(jnp.float32) * TILE + TILE / 2
        return x, y


def forward(program: Program, order, pixels, offsets, packed, left_out, color_out):
    """Writes the final transmittance [T, Q] and the color without background [T, C, Q].

    Args:
      order: [T] tiles, busiest first, so that no long walk begins last.
      pixels: [4, Q] x and y from the tile's center, zeros and ones.
      offsets: [T + 1] multiples of K.
      packed: [P, 6 + C or more].
    """
    tile = order[program.index()]
    x, y, zero, one = (pixels[i, :] for i in range(4))
    center = program.tile_center(tile)

    def visit(index, state):
        running, left, *color = state
        _, _, _, alpha = _evaluate(packed, index, center, x, y)
        after = running * (1.0 - alpha)
        accepted = after > layout.STOP_TRANSMITTANCE
        weight = jnp.where(accepted, alpha * running, 0.0)
        color = [
            value + weight * packed[index, layout.GEOMETRY + i] for i, value in enumerate(color)
        ]
        return (after, jnp.where(accepted, after, left), *color)

    def chunk(begin, state):
        return jax.lax.fori_loop(0, CHUNK, lambda k, s: visit(begin + k, s), state)

    start = (one, one, *([zero] * program.channels))
    _, (_, left, *color) = _walk(offsets[tile], offsets[tile + 1], chunk, start)
    left_out[tile, :] = left
    for i, value in enumerate(color):
        color_out[tile, i, :] = value


def backward(
    program: Program,
    order,
    pixels,
    offsets,
    packed,
    image_cotangent,
    alpha_cotangent,
    total,
    sums_out,
    sigma_rows,
    weight_rows,
):
    """Writes per pair, as columns [6 + C (+ 2), P], what `mosaic.backward_tiles` returns.

    Args:
      order, pixels, offsets, packed: as in `forward`.
      image_cotangent: [T, C, Q].
      alpha_cotangent: [T, Q].
      total: [T, Q] cotangent times output, over channels and alpha.
      sigma_rows, weight_rows: shared memory [K, ROW].
    """
    tile = order[program.index()]
    x, y, zero, one = (pixels[i, :] for i in range(4))
    center = program.tile_center(tile)
    v = [image_cotangent[tile, i, :] for i in range(program.channels)]
    v_alpha, all_light = alpha_cotangent[tile, :], total[tile, :]
    whole = pl.ds(0, TILE * TILE)

    def chunk(begin, state):
        def visit(k, state):
            running, front = state
            index = begin + k
            _, _, unclamped, alpha = _evaluate(packed, index, center, x, y)
            rest = 1.0 - alpha
            after = running * rest
            accepted = after > layout.STOP_TRANSMITTANCE
            before = jnp.where(accepted, running, 0.0)
            weight = alpha * before
            g = v_alpha
            for i in range(program.channels):
                g = g + v[i] * packed[index, layout.GEOMETRY + i]
            front = front + weight * g
            alpha_grad = before * g - (all_light - front) / rest
            free = accepted & (unclamped <= layout.MAX_ALPHA)
            sigma_rows[k, whole] = jnp.where(free, -(alpha * alpha_grad), 0.0)
            weight_rows[k, whole] = weight
            return after, front

        state = jax.lax.fori_loop(0, CHUNK, visit, state)
        program.barrier()
        sums = _chunk_sums(
            program, tile, begin, center, packed, image_cotangent, sigma_rows, weight_rows
        )
        for column, value in enumerate(sums):
            sums_out[column, pl.ds(begin, CHUNK)] = value
        program.barrier()
        return state

    end = offsets[tile + 1]
    reached, _ = _walk(offsets[tile], end, chunk, (one, zero))

    nothing = program.no_pairs()

    def clear(index, carry):
        for column in range(sums_out.shape[0]):
            sums_out[column, pl.ds(reached + index * CHUNK, CHUNK)] = nothing
        return carry

    # Pairs behind the stop have no gradient, and nobody else writes their columns.
    jax.lax.fori_loop(0, (end - reached) // CHUNK, clear, jnp.int32(0))


def _evaluate(packed, index, center, x, y):
    """Of one pair: distances, the opacity before the clamp and alpha, [Q] each, 0 if skipped."""
    delta_x = (packed[index, 0] - center[0]) - x
    delta_y = (packed[index, 1] - center[1]) - y
    a, b, c, opacity = (packed[index, i] for i in range(2, 6))
    sigma = 0.5 * (a * delta_x * delta_x + c * delta_y * delta_y) + b * delta_x * delta_y
    unclamped = opacity * jnp.exp(-sigma)
    kept = (sigma >= 0.0) & (unclamped >= layout.MIN_ALPHA)
    unclamped = jnp.where(kept, unclamped, 0.0)
    return delta_x, delta_y, unclamped, jnp.minimum(unclamped, layout.MAX_ALPHA)


def _walk(begin, end, chunk: Callable, state):
    """Runs chunks until the end or until state[0], the running product, is small everywhere.

    Returns the next pair and the state.
    """

    def working(carry):
        position, brightest, _ = carry
        return (position < end) & (brightest > layout.STOP_TRANSMITTANCE)

    def step(carry):
        position, _, state = carry
        state = chunk(position, state)
        return position + CHUNK, jnp.max(state[0]), state

    position, _, state = jax.lax.while_loop(working, step, (begin, jnp.float32(1.0), state))
    return position, state


def _chunk_sums(
    program: Program, tile, begin, center, packed, image_cotangent, sigma_rows, weight_rows
):
    """The sums over pixels of a chunk, [K] each, in the order of the output's columns."""
    pairs = pl.ds(0, CHUNK)
    if program.interpret:
        x = jax.lax.broadcasted_iota(jnp.int32, (CHUNK, TILE), 1)
    else:
        x = plgpu.broadcasted_iota(jnp.int32, (CHUNK, TILE), 1, layout=BLOCK)
    x = x.astype(jnp.float32) - (TILE - 1) / 2
    zero = program.block(jnp.float32(0.0))

    if program.absolute:
        chosen = pl.ds(begin, CHUNK)
        mean_x, mean_y, a, b, c = (program.load(packed, (chosen, i), (1,)) for i in range(5))
        delta_x = program.spread(mean_x - center[0], 0) - x
        from_x, from_y = program.spread(a, 0) * delta_x, program.spread(b, 0) * delta_x

    def block(row, accumulators):
        pixels = pl.ds(row * TILE, TILE)
        y = row.astype(jnp.float32) - (TILE - 1) / 2
        sigma_grad = program.load(sigma_rows, (pairs, pixels))
        weight = program.load(weight_rows, (pairs, pixels))
        terms = [sigma_grad, sigma_grad * y, sigma_grad * (y * y)]
        for i in range(program.channels):
            v = program.load(image_cotangent, (tile, i, pixels), (0,))
            terms.append(weight * program.spread(v, 1))
        if program.absolute:
            delta_y = (mean_y - center[1]) - y
            along_x = from_x + program.spread(b * delta_y, 0)
            along_y = from_y + program.spread(c * delta_y, 0)
            terms += [jnp.abs(sigma_grad * along_x), jnp.abs(sigma_grad * along_y)]
        return tuple(old + term for old, term in zip(accumulators, terms))

    count = 3 + program.channels + (2 if program.absolute else 0)
    total, by_y, by_yy, *others = jax.lax.fori_loop(0, TILE, block, (zero,) * count)
    moments = (total, total * x, by_y, total * (x * x), by_y * x, by_yy)
    return [jnp.sum(value, axis=1) for value in (*moments, *others)]
