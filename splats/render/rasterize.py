"""One interface to all compositors.

Backends: "xla" runs on every platform; "mosaic_gpu" is a kernel for CUDA devices of compute
capability 9.0 and higher. "auto" is "xla" until the kernel has run on such a device.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from splats.render.composite import composite
from splats.render.layout import Plan
from training.errors import ConfigError
from training.mesh import platform

# From this jax on the kernel is refused: it is written for the Pallas of 0.10, and that of 0.12
# loads by another signature and refuses stores of 16 bytes per warp.
NEWER_PALLAS = (0, 11)
# Tiles side by side and pairs per step of the XLA loop. CPU: measured on one core. GPU: a step is a
# dozen kernels and a wait, so steps are few and large; more than 16 pairs would add kernels, more
# tiles would leave the second-level cache (docs/splats_render.md). Others: not measured.
LOOP_SHAPES = {"cpu": (32, 8), "gpu": (1024, 16)}
OTHER_LOOP_SHAPE = (256, 8)
CPU_TILE_SIZE = 8
ACCELERATOR_TILE_SIZE = 16


def resolve_backend(backend: str) -> str:
    """Replaces "auto" by the backend that has been run on hardware."""
    return "xla" if backend == "auto" else backend


def check_backend(backend: str, device: Any) -> None:
    """Raises ConfigError where the kernel is asked for on a device that cannot run it."""
    if backend == "mosaic_gpu" and jax.__version_info__ >= NEWER_PALLAS:
        raise ConfigError(
            "config.render.backend = 'mosaic_gpu' is written for the Pallas of jax 0.10, and this "
            f"is jax {jax.__version__}; install jax 0.10.2 or use auto or xla"
        )
    if backend == "mosaic_gpu" and not _is_hopper_or_newer(device):
        raise ConfigError(
            "config.render.backend = 'mosaic_gpu' needs a CUDA device of compute capability 9.0 "
            f"or higher, and this is {device.device_kind}; use auto or xla"
        )


def _is_hopper_or_newer(device: Any) -> bool:
    """Whether the device is a CUDA device of compute capability 9.0 or higher."""
    capability = getattr(device, "compute_capability", "")
    parts = str(capability).split(".")
    is_cuda = device.platform in ("gpu", "cuda") and parts[0].isdigit()
    return is_cuda and int(parts[0]) >= 9


def resolve_tile_size(tile_size: int) -> int:
    """Replaces 0 by the side that suits the platform: small tiles waste fewer pixels."""
    if tile_size:
        return tile_size
    return CPU_TILE_SIZE if platform() == "cpu" else ACCELERATOR_TILE_SIZE


def resolve_loop_shape(lanes: int, chunk: int, tiles: int) -> tuple[int, int]:
    """Replaces 0 by what suits the platform; no more lanes than tiles."""
    default = LOOP_SHAPES.get(platform(), OTHER_LOOP_SHAPE)
    return min(lanes or default[0], tiles), chunk or default[1]


def rasterize(
    means2d: jax.Array,
    conics: jax.Array,
    colors: jax.Array,
    opacities: jax.Array,
    background: jax.Array,
    pair_gaussian: jax.Array,
    tile_offsets: jax.Array,
    *,
    width: int,
    height: int,
    tile_size: int = 16,
    backend: str = "auto",
    absgrad_probe: jax.Array | None = None,
    chunk: int = 0,
    lanes: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """Composites screen Gaussians front to back; see `splats.render.composite` for the rules.

    Args:
      means2d: [N, 2] pixels.
      conics: [N, 3] (a, b, c).
      colors: [N, C].
      opacities: [N].
      background: [C].
      pair_gaussian: [P] int32 from `splats.render.tiles.build_pairs`.
      tile_offsets: [T + 1] int32 from the same.
      width: pixels.
      height: pixels.
      tile_size: pixels, as used for the pairs.
      backend: one of `splats.render.camera.BACKENDS`.
      absgrad_probe: optional zeros [N, 2]; its gradient is the sum over pixels of the absolute
        gradient of `means2d`, which costs two more reductions.
      chunk: pairs per step of the XLA loop; 0 chooses by platform.
      lanes: tiles side by side in the XLA loop; 0 chooses by platform.

    Returns:
      image [height, width, C] and accumulated alpha [height, width].
    """
    lanes, chunk = resolve_loop_shape(lanes, chunk, tile_offsets.shape[0] - 1)
    plan = Plan(
        height=height,
        width=width,
        channels=colors.shape[1],
        tile_size=tile_size,
        lanes=lanes,
        chunk=chunk,
        backend=resolve_backend(backend),
        absolute=absgrad_probe is not None,
    )
    probe = jnp.zeros_like(means2d) if absgrad_probe is None else absgrad_probe
    return composite(
        plan, means2d, conics, opacities, colors, background, probe, pair_gaussian, tile_offsets
    )
