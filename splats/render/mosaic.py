"""Compositing of tiles by a Pallas kernel for GPUs of compute capability 9.0 and higher.

One program per tile; each pixel of the tile is one vector element (a warpgroup of 128 threads holds
two pixels per thread). The program walks exactly its own pairs, however many, and leaves as soon as
all its pixels have stopped. The derivative writes one row of pixel sums per pair, so that no two
programs write the same memory: no atomics, and the result does not depend on their order.

Transmittance is a recurrence here, so the walk needs neither running products nor storage of
intermediate states; everything else is as in `tile_loop`.

The same body runs in Pallas' interpreter on any platform (backend "mosaic_gpu_interpret").

Vocabulary: Q pixels of a tile, C channels, P pair slots, K pairs between two checks for leaving,
T tiles.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from splats.render import layout
from training.errors import ConfigError

WARPGROUP = 128
CHECK_EVERY = 16  # Pairs between two checks whether all pixels have stopped.


def forward_tiles(plan, packed, tile_offsets):
    """Final transmittance [T, Q] and colour without background [T, C, Q]."""
    tiles, channels = tile_offsets.shape[0] - 1, packed.shape[1] - layout.GEOMETRY
    pixels = plan.tile_size**2
    shapes = [(tiles, pixels), (tiles, channels, pixels)]
    inputs = (_tile_frames(plan, tiles), tile_offsets, packed)
    left, color = _call(plan, partial(_forward_kernel, channels), tiles, inputs, shapes)
    return left, color


def backward_tiles(plan, packed, tile_offsets, image_cotangent, alpha_cotangent, total):
    """Per pair slot [P, 6 + C (+ 2)]: moments of dL/dsigma, colour gradients (absolute sums)."""
    tiles, channels = tile_offsets.shape[0] - 1, packed.shape[1] - layout.GEOMETRY
    capacity = packed.shape[0] - plan.chunk
    width = layout.MOMENTS + channels + (2 if plan.absolute else 0)
    inputs = (
        _tile_frames(plan, tiles),
        tile_offsets,
        packed,
        image_cotangent,
        alpha_cotangent,
        total,
    )
    kernel = partial(_backward_kernel, channels, plan.absolute)
    (rows,) = _call(plan, kernel, tiles, inputs, [(capacity, width)])
    # No program owns the unused slots at the end: whatever memory held there is dropped.
    used = jnp.arange(capacity, dtype=jnp.int32) < tile_offsets[-1]
    return jnp.where(used[:, None], rows, 0.0)


def _tile_frames(plan, tiles) -> jax.Array:
    """Per tile [T, 6, Q]: pixel x and y in the image, x and y from the tile's centre, 0 and 1."""
    x, y = layout.pixel_offsets(plan)
    center_x, center_y = layout.tile_centers(plan, jnp.arange(tiles, dtype=jnp.int32))
    shape = (tiles, x.size)
    local_x, local_y = (jnp.broadcast_to(jnp.asarray(v)[None, :], shape) for v in (x, y))
    rows = (
        center_x[:, None] + local_x,
        center_y[:, None] + local_y,
        local_x,
        local_y,
        jnp.zeros(shape),
        jnp.ones(shape),
    )
    return jnp.stack(rows, axis=1)


def _call(plan, kernel, tiles, inputs, shapes):
    """Runs the kernel once per tile on arrays that stay in the device's memory."""
    if plan.tile_size**2 % WARPGROUP:
        raise ConfigError(
            f"tile_size {plan.tile_size}: backend {plan.backend!r} needs 16, a multiple of "
            f"{WARPGROUP} pixels per tile"
        )
    interpret = plan.backend == "mosaic_gpu_interpret"
    whole = pl.BlockSpec(memory_space=pl.ANY if interpret else plgpu.GMEM)
    return pl.pallas_call(
        kernel,
        grid=(tiles,),
        in_specs=[whole] * len(inputs),
        out_specs=[whole] * len(shapes),
        out_shape=[jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes],
        interpret=interpret,
        compiler_params=None if interpret else plgpu.CompilerParams(),
    )(*inputs)


def _pair(packed, index, x, y):
    """Of one pair: distances, the opacity before the clamp and alpha, [Q] each, 0 if skipped."""
    delta_x, delta_y = packed[index, 0] - x, packed[index, 1] - y
    a, b, c, opacity = (packed[index, i] for i in range(2, 6))
    sigma = 0.5 * (a * delta_x * delta_x + c * delta_y * delta_y) + b * delta_x * delta_y
    unclamped = opacity * jnp.exp(-sigma)
    kept = (sigma >= 0.0) & (unclamped >= layout.MIN_ALPHA)
    unclamped = jnp.where(kept, unclamped, 0.0)
    return delta_x, delta_y, unclamped, jnp.minimum(unclamped, layout.MAX_ALPHA)


def _walk(begin, end, visit, state):
    """Visits pairs until the end or until state[0], the running product, is small everywhere.

    Returns the next pair and the state.
    """

    def working(carry):
        position, brightest, _ = carry
        return (position < end) & (brightest > layout.STOP_TRANSMITTANCE)

    def step(carry):
        position, _, state = carry
        stop = jnp.minimum(position + CHECK_EVERY, end)
        state = jax.lax.fori_loop(position, stop, visit, state)
        return stop, jnp.max(state[0]), state

    position, _, state = jax.lax.while_loop(working, step, (begin, jnp.float32(1.0), state))
    return position, state


def _forward_kernel(channels, frames, offsets, packed, left_out, color_out):
    tile = pl.program_id(0)
    x, y, zero, one = (frames[tile, i, :] for i in (0, 1, 4, 5))

    def visit(index, state):
        running, left, *color = state
        _, _, _, alpha = _pair(packed, index, x, y)
        after = running * (1.0 - alpha)
        accepted = after > layout.STOP_TRANSMITTANCE
        weight = jnp.where(accepted, alpha * running, 0.0)
        color = [
            value + weight * packed[index, layout.GEOMETRY + i] for i, value in enumerate(color)
        ]
        return (after, jnp.where(accepted, after, left), *color)

    start = (one, one, *([zero] * channels))
    _, (_, left, *color) = _walk(offsets[tile], offsets[tile + 1], visit, start)
    left_out[tile, :] = left
    for i, value in enumerate(color):
        color_out[tile, i, :] = value


def _backward_kernel(
    channels, absolute, frames, offsets, packed, image_cotangent, alpha_cotangent, total, rows
):
    tile = pl.program_id(0)
    x, y, local_x, local_y, zero, one = (frames[tile, i, :] for i in range(6))
    v = [image_cotangent[tile, i, :] for i in range(channels)]
    v_alpha, all_light = alpha_cotangent[tile, :], total[tile, :]
    moments = (None, local_x, local_y, local_x * local_x, local_x * local_y, local_y * local_y)

    def visit(index, state):
        running, front = state
        delta_x, delta_y, unclamped, alpha = _pair(packed, index, x, y)
        rest = 1.0 - alpha
        after = running * rest
        accepted = after > layout.STOP_TRANSMITTANCE
        before = jnp.where(accepted, running, 0.0)
        weight = alpha * before
        g = v_alpha
        for i in range(channels):
            g = g + v[i] * packed[index, layout.GEOMETRY + i]
        front = front + weight * g
        alpha_grad = before * g - (all_light - front) / rest
        free = accepted & (unclamped <= layout.MAX_ALPHA)
        sigma_grad = jnp.where(free, -(alpha * alpha_grad), 0.0)
        sums = [sigma_grad if m is None else sigma_grad * m for m in moments]
        sums += [weight * v[i] for i in range(channels)]
        if absolute:
            a, b, c = (packed[index, i] for i in (2, 3, 4))
            sums.append(jnp.abs(sigma_grad * (a * delta_x + b * delta_y)))
            sums.append(jnp.abs(sigma_grad * (b * delta_x + c * delta_y)))
        for column, value in enumerate(sums):
            rows[index, column] = jnp.sum(value)
        return after, front

    end = offsets[tile + 1]
    reached, _ = _walk(offsets[tile], end, visit, (one, zero))

    def clear(index, carry):
        for column in range(rows.shape[1]):
            rows[index, column] = jnp.float32(0.0)
        return carry

    jax.lax.fori_loop(reached, end, clear, jnp.int32(0))
