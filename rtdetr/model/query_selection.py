"""Which tokens become queries: those with the highest class score (Zhao et al. 2024, section 4.3).

Each token has an *anchor*, a box around its cell; the encoder's head moves it. Tokens too near to
the border, and padding, have none.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rtdetr.config import DecoderConfig

Size = tuple[int, int]


def anchors(sizes: Sequence[Size], config: DecoderConfig) -> tuple[np.ndarray, np.ndarray]:
    """`cxcywh_norm` boxes fp32 `[N, 4]` of all tokens, and which are no anchors' cells, bool `[N]`.

    Cells without an anchor have a box all the same, so that every number is finite.
    """
    boxes = []
    for level, (height, width) in enumerate(sizes):
        y, x = np.meshgrid(
            (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij"
        )
        side = config.anchor_size * 2.0**level
        wide = high = np.full_like(x, side)
        if config.anchors == "square_pixels":
            # As many px wide as high, with the area that the relative anchor has.
            aspect = (sizes[0][1] / sizes[0][0]) ** 0.5
            wide, high = wide / aspect, high * aspect
        boxes.append(np.stack([x, y, wide, high], axis=-1).reshape(-1, 4))
    values = np.concatenate(boxes).astype(np.float32)
    margin = config.anchor_margin
    valid = np.all((values > margin) & (values < 1 - margin), axis=-1)
    return np.clip(values, 1e-5, 1 - 1e-5), valid


def select(scores: jax.Array, count: int) -> jax.Array:
    """Indices int32 `[B, count]` of the tokens with the highest score `[B, N]`, best first."""
    return jax.lax.top_k(scores, count)[1]


def pick(x: jax.Array, index: jax.Array) -> jax.Array:
    """Rows of `[B, N, ...]` by `[B, Q]`."""
    return jnp.take_along_axis(x, index[..., None], axis=1)
