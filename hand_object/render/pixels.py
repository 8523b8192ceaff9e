"""Which pixels of a frame are looked at, drawn on the device, and their rays.

A pixel is a column and a row, whole numbers at its center. Letters: F frames, R rays of each, B
boxes of each (object first, then hands).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hand_object.config import RaysConfig
from hand_object.render.rays import camera_rays
from hand_object.render.scene import Rays

Arrays = dict[str, jax.Array]


def box_counts(config: RaysConfig, boxes: int, has_object: bool) -> tuple[int, ...]:
    """How many of the pixels of a frame lie in each box; the others may lie anywhere."""
    hands = boxes - has_object
    counts = [round(config.on_object * config.per_frame)] if has_object else []
    return (*counts, *[int(config.on_hands * config.per_frame / hands) for _ in range(hands)])


def draw_pixels(
    key: jax.Array, boxes: jax.Array, counts: tuple[int, ...], rays: int, size: tuple[int, int]
) -> jax.Array:
    """[R, 2] int32 pixels of one frame, evenly spread in each box [B, 4] and in the picture."""
    height, width = size
    whole = jnp.array([[0, 0, width, height]], boxes.dtype)
    owner = [box for box, count in enumerate(counts) for _ in range(count)]
    owner += [len(counts)] * (rays - len(owner))
    own = jnp.concatenate([boxes, whole])[jnp.array(owner)]
    low, high = own[:, :2].astype(jnp.float32), own[:, 2:].astype(jnp.float32)
    place = jnp.floor(low + jax.random.uniform(key, low.shape) * (high - low))
    return jnp.minimum(place, high - 1.0).astype(jnp.int32)


def pixel_rays(arrays: Arrays, frames: jax.Array, pixels: jax.Array) -> Rays:
    """Rays in scene units of pixels [F, R, 2] of frames [F]."""
    origins, directions = jax.vmap(camera_rays)(
        pixels.astype(jnp.float32), arrays["intrinsics"][frames], arrays["camera_to_scene"][frames]
    )
    backdrop = None
    if "backdrop" in arrays:
        backdrop = as_float(arrays["backdrop"][pixels[..., 1], pixels[..., 0]])
    return Rays(origins, directions, frames, backdrop)


def pixel_values(
    arrays: Arrays, frames: jax.Array, pixels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Colors [F, R, 3] in 0..1 and classes [F, R] int32 of pixels [F, R, 2]."""
    where = frames[:, None], pixels[..., 1], pixels[..., 0]
    return as_float(arrays["images"][where]), arrays["masks"][where].astype(jnp.int32)


def as_float(levels: jax.Array) -> jax.Array:
    """uint8 -> 0..1."""
    return levels.astype(jnp.float32) / 255.0
