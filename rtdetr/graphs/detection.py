"""The function that is exported: from canvases to detections in the pixels of their images.

Normalization of pixels, the network with its weights, the choice of the best detections and the way
back to the image are all inside; only the resizing of an image to its canvas is left to the caller.
Maps are sampled by gathers, which every runtime has and none replaces by a kernel of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rtdetr.config import Config
from rtdetr.inference import Weights
from rtdetr.model.detector import detect
from rtdetr.postprocess import top_detections

# Names of the arguments and of the results, in order.
INPUTS, OUTPUTS = ("images", "sizes"), ("scores", "labels", "boxes")
Answers = tuple[jax.Array, jax.Array, jax.Array]
Graph = Callable[[jax.Array, jax.Array], Answers]


def graph_of(config: Config, weights: Weights, dtype: str | None = None) -> Graph:
    """The function of a config, its weights as constants.

    It takes canvases, uint8 `[B, H, W, 3]` RGB, and the sizes (height, width) in px of the images
    that they were made of, int32 `[B, 2]`. It returns scores fp32 `[B, N]`, best first, labels
    int32 `[B, N]` and corners (left, top, right, bottom) fp32 `[B, N, 4]` in px of the image,
    clipped to it. `config.scoring` has the numbers of layers, queries and detections.

    Args:
      dtype: of convolutions and products of matrices; None: that of the config.
    """
    decoder = dataclasses.replace(config.model.decoder, sampling="gather")
    model = dataclasses.replace(config.model, decoder=decoder, dtype=dtype or config.model.dtype)
    scoring, padded = config.scoring, config.data.resize == "letterbox"

    def graph(images: jax.Array, sizes: jax.Array) -> Answers:
        canvas = images.shape[1], images.shape[2]
        content = content_of(sizes, canvas) if padded else None
        output, _ = detect(
            model,
            weights.params,
            weights.statistics,
            images,
            content,
            train=False,
            layers=scoring.layers or None,
            queries=scoring.queries or None,
        )
        last = jax.tree.map(lambda x: x[-1], output.decoder)
        found = top_detections(last.logits, last.boxes, scoring.detections)
        limits = sizes.astype(jnp.float32)
        covered = limits  # by the canvas, in px of the image
        if content is not None:
            shares = content.astype(jnp.float32) / jnp.array([canvas], jnp.float32)
            covered = limits / shares
        corners = found.boxes.pixels(covered[:, None]).values
        most = jnp.concatenate([limits[:, ::-1], limits[:, ::-1]], axis=-1)[:, None]
        return found.scores, found.labels, jnp.clip(corners, 0, most)

    return graph


def content_of(sizes: jax.Array, canvas: tuple[int, int]) -> jax.Array:
    """`rtdetr.data.geometry.content_size` of a letterbox, int32 `[B, 2]`.

    In whole numbers, since fp32 would round other sides than the resizing does.
    """
    height, width = sizes[:, 0], sizes[:, 1]
    rows, columns = canvas
    tall = rows * width <= columns * height  # the height fills the canvas
    down = jnp.where(tall, rows, _rounded(height * columns, width))
    across = jnp.where(tall, _rounded(width * rows, height), columns)
    return jnp.stack([jnp.clip(down, 1, rows), jnp.clip(across, 1, columns)], axis=-1)


def _rounded(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """The quotient of positive whole numbers, rounded; halves to the even one."""
    whole = numerator // denominator
    rest = 2 * (numerator - whole * denominator)
    odd = whole % 2 == 1
    return whole + ((rest > denominator) | ((rest == denominator) & odd)).astype(jnp.int32)
