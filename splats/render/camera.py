"""The camera and the static settings of a rendering.

Frames: world; camera (x right, y down, z forward); pixels (x right, y down, the center of the
top-left pixel is at (0.5, 0.5)).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax

from training.errors import ConfigError

CAMERA_MODELS = ("pinhole", "ortho", "fisheye")
BACKENDS = ("auto", "xla", "mosaic_gpu", "mosaic_gpu_interpret")


class Camera(NamedTuple):
    """One camera; every leaf may carry the same leading axes, for vmap and scan.

    `world_to_camera` is [4, 4] (rotation and translation, last row 0 0 0 1); focal lengths and
    principal point are scalars in pixels of the rendered size.
    """

    world_to_camera: jax.Array
    fx: jax.Array
    fy: jax.Array
    cx: jax.Array
    cy: jax.Array


@dataclasses.dataclass(frozen=True)
class RenderSettings:
    """What must be known when the renderer is compiled.

    Raises:
      ConfigError: when a field is outside of its range.
    """

    width: int  # Pixels.
    height: int  # Pixels.
    pair_capacity: int  # Slots for (tile, Gaussian) pairs; too few set `RenderOutput.overflow`.
    tile_size: int = 0  # Pixels, side of a square tile: 8 or 16; 0 is 8 on CPU, else 16.
    near: float = 0.01  # World units along z; nearer means are culled.
    far: float = 1e10  # World units along z; farther means are culled.
    eps2d: float = 0.3  # Pixels squared, added to the diagonal of the screen covariance.
    antialiased: bool = False  # Scale opacities by the area that eps2d added (Mip-Splatting).
    camera_model: str = "pinhole"  # One of CAMERA_MODELS.
    backend: str = "auto"  # One of BACKENDS; see splats.render.rasterize.
    chunk: int = 0  # Pairs composited per step of the XLA loop; 0 chooses by platform.
    lanes: int = 0  # Tiles composited side by side by the XLA loop; 0 chooses by platform.
    render_depth: bool = False  # Also composite the expected depth.

    def __post_init__(self):
        if self.width < 1 or self.height < 1:
            raise ConfigError(f"render size {self.width}x{self.height}: both sides must be >= 1")
        if self.pair_capacity < 1:
            raise ConfigError(f"pair_capacity {self.pair_capacity}: give at least one slot")
        if self.tile_size not in (0, 8, 16):
            raise ConfigError(f"tile_size {self.tile_size}: use 8, 16 or 0 (by platform)")
        if self.chunk < 0 or self.lanes < 0:
            raise ConfigError(f"chunk {self.chunk}, lanes {self.lanes}: use >= 0 (0: by platform)")
        if self.camera_model not in CAMERA_MODELS:
            raise ConfigError(f"camera_model {self.camera_model!r}: use one of {CAMERA_MODELS}")
        if self.backend not in BACKENDS:
            raise ConfigError(f"backend {self.backend!r}: use one of {BACKENDS}")
