"""Compositing of tiles by Pallas kernels for GPUs of compute capability 9.0 and higher.

One program per tile, however many pairs it has; the busiest tiles begin first. The derivative
writes one column of pixel sums per pair, so that no two programs write the same memory: no atomics,
and the result does not depend on their order. The bodies are in `mosaic_kernels`.

Backend "mosaic_gpu_interpret" runs the same bodies in Pallas' interpreter on any platform.

Vocabulary: Q pixels of a tile, C channels, P pair slots, T tiles.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from splats.render import layout, mosaic_kernels
from splats.render.mosaic_kernels import CHUNK, GRID, ROW, TILE
from training.errors import ConfigError


def forward_tiles(plan, packed, tile_offsets):
    """Final transmittance [T, Q] and color without background [T, C, Q]."""
    tiles, pixels = tile_offsets.shape[0] - 1, plan.tile_size**2
    shapes = [(tiles, pixels), (tiles, plan.channels, pixels)]
    left, color = _call(plan, mosaic_kernels.forward, packed, tile_offsets, (), shapes)
    return left, color


def backward_tiles(plan, packed, tile_offsets, image_cotangent, alpha_cotangent, total):
    """Per pair slot [P, 6 + C (+ 2)]: moments of dL/dsigma, color gradients (absolute sums)."""
    capacity = packed.shape[0] - plan.chunk
    width = layout.MOMENTS + plan.channels + (2 if plan.absolute else 0)
    cotangents = (image_cotangent, alpha_cotangent, total)
    scratch = [plgpu.SMEM((CHUNK, ROW), jnp.float32)] * 2
    (columns,) = _call(
        plan,
        mosaic_kernels.backward,
        packed,
        tile_offsets,
        cotangents,
        [(width, capacity)],
        scratch,
    )
    # No program owns the unused slots at the end: whatever memory held there is dropped.
    used = jnp.arange(capacity, dtype=jnp.int32) < tile_offsets[-1]
    return jnp.where(used[None, :], columns, 0.0).T


def kernel_inputs(plan, tile_offsets):
    """What both kernels read first: order of the tiles [T], pixels [4, Q] and offsets [T + 1]."""
    # Minus the counts, so that the busiest tile comes first.
    order = jnp.argsort(tile_offsets[:-1] - tile_offsets[1:], stable=True).astype(jnp.int32)
    x, y = layout.pixel_offsets(plan)
    pixels = jnp.asarray(np.stack([x, y, np.zeros_like(x), np.ones_like(x)]))
    return order, pixels, tile_offsets


def _call(plan, body, packed, tile_offsets, cotangents, shapes, scratch=()):
    """Runs a body once per tile on arrays that stay in the device's memory."""
    if plan.tile_size != TILE:
        raise ConfigError(
            f"tile_size {plan.tile_size}: backend {plan.backend!r} needs tiles of {TILE} pixels"
        )
    inputs = (*kernel_inputs(plan, tile_offsets), packed, *cotangents)
    interpret = plan.backend == "mosaic_gpu_interpret"
    program = mosaic_kernels.Program(
        channels=plan.channels,
        columns=plan.grid[1],
        absolute=plan.absolute,
        interpret=interpret,
    )
    kernel = partial(body, program)
    tiles = tile_offsets.shape[0] - 1
    outputs = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    if interpret:
        whole = pl.BlockSpec(memory_space=pl.ANY)
        return pl.pallas_call(
            kernel,
            grid=(tiles,),
            in_specs=[whole] * len(inputs),
            out_specs=[whole] * len(shapes),
            out_shape=outputs,
            scratch_shapes=list(scratch),
            interpret=True,
        )(*inputs)
    parameters = plgpu.CompilerParams(
        # Barriers are written out: see `mosaic_kernels`.
        unsafe_no_auto_barriers=True,
        lowering_semantics=plgpu.LoweringSemantics.Lane,
    )
    return plgpu.kernel(
        kernel,
        out_type=outputs,
        scratch_types=list(scratch),
        compiler_params=parameters,
        grid=(tiles,),
        grid_names=(GRID,),
        kernel_name=f"splats_{body.__name__}",
    )(*inputs)
