"""RT-DETR as pure functions: parameters and statistics in, detections and statistics out.

Statistics are what batch norms keep beside the parameters, see `rtdetr.model.layers`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rtdetr.config import STRIDES, ModelConfig
from rtdetr.model.backbone import Backbone
from rtdetr.model.decoder import Decoder
from rtdetr.model.hybrid_encoder import HybridEncoder
from rtdetr.targets import DenoisingQueries, DetectorOutput
from training.errors import ConfigError

PyTree = Any
# Of the training images of ImageNet, by channel.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALLEST = 32  # side of a canvas


class Detector(nn.Module):
    """The whole network."""

    config: ModelConfig
    classes: int

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        content: jax.Array | None,
        train: bool,
        denoising: DenoisingQueries | None,
        layers: int,
        queries: int,
    ) -> DetectorOutput:
        config = self.config
        x = network_input(images, content, config)
        height, width = images.shape[1:3]
        valid = None if content is None else valid_tokens(content, (height, width))
        maps = Backbone(config.backbone, config.remat, name="backbone")(x, train)
        maps = HybridEncoder(config.encoder, name="encoder")(maps, valid, train)
        decoder = Decoder(config.decoder, self.classes, name="decoder")
        return decoder(maps, valid, train, denoising, layers, queries)


def network_input(images: jax.Array, content: jax.Array | None, config: ModelConfig) -> jax.Array:
    """uint8 `[B, H, W, 3]` RGB as floating point; padding is 0 after the normalization."""
    x = images.astype(jnp.float32) / 255
    if config.input_norm == "imagenet":
        mean, std = (np.array(row, np.float32) for row in (IMAGENET_MEAN, IMAGENET_STD))
        x = (x - mean.reshape(1, 1, 1, 3)) / std.reshape(1, 1, 1, 3)
    if content is not None:
        height, width = images.shape[1:3]
        inside = _inside(content, (height, width), 1)
        x = jnp.where(inside[..., None], x, 0.0)
    return x.astype(config.dtype)


def valid_tokens(content: jax.Array, canvas: tuple[int, int]) -> list[jax.Array]:
    """bool `[B, h, w]` of each map: the cell of a token begins inside of the image."""
    return [_inside(content, canvas, stride) for stride in STRIDES]


def _inside(content: jax.Array, canvas: tuple[int, int], stride: int) -> jax.Array:
    rows, columns = (jnp.arange(0, side, stride) for side in canvas)
    return (rows[None, :, None] < content[:, :1, None]) & (
        columns[None, None, :] < content[:, 1:2, None]
    )


# Traced once for all who ask for its shapes: program, optimizer, weights that come in.
@partial(jax.jit, static_argnums=(1, 2))
def init(key: jax.Array, config: ModelConfig, classes: int) -> tuple[PyTree, PyTree]:
    """Initial (parameters, statistics), all fp32."""
    side = 4 * SMALLEST
    images = jnp.zeros((1, side, side, 3), jnp.uint8)
    detector = Detector(config, classes)
    # Enough tokens for one query on this small canvas; no shape depends on their number.
    variables = detector.init(key, images, None, False, None, config.decoder.layers, 1)
    return variables["params"], variables["statistics"]


def detect(
    config: ModelConfig,
    params: PyTree,
    statistics: PyTree,
    images: jax.Array,
    content: jax.Array | None = None,
    *,
    train: bool,
    denoising: DenoisingQueries | None = None,
    layers: int | None = None,
    queries: int | None = None,
) -> tuple[DetectorOutput, PyTree]:
    """What the network says of images.

    Args:
      images: uint8 `[B, height, width, 3]`, sides multiples of 32.
      content: int32 `[B, 2]` (height, width) px of the image on its canvas; None: no padding.
      train: norms use the statistics of the batch and update the running ones; a layer's box also
        trains the layer before.
      denoising: queries in front of the selected ones.
      layers, queries: fewer decoder layers or other numbers of queries than the config's.

    Returns:
      The output, and the new statistics (the same ones where `train` is False).

    Raises:
      ConfigError: a canvas, or a number of layers or queries, that the network cannot have.
    """
    height, width = images.shape[1:3]
    layers = layers or config.decoder.layers
    queries = queries or config.decoder.queries
    tokens = sum((height // stride) * (width // stride) for stride in STRIDES)
    if height % SMALLEST or width % SMALLEST:
        raise ConfigError(
            f"a canvas of {height} x {width} px has no whole number of tokens; its sides must be "
            f"multiples of {SMALLEST}"
        )
    if queries > tokens:
        raise ConfigError(
            f"{queries} queries are more than the {tokens} tokens of a {height} x {width} canvas; "
            "lower model.decoder.queries or enlarge data.size"
        )
    if layers > config.decoder.layers:
        raise ConfigError(
            f"{layers} decoder layers were asked for and the network has {config.decoder.layers}"
        )
    classes = params["decoder"]["token_score"]["bias"].shape[0]
    detector = Detector(config, classes)
    variables = {"params": params, "statistics": statistics}
    # Nothing is mutable in use: a norm that tried to change its statistics would be told.
    mutable = ["statistics"] if train else []
    output: Any
    output, updated = detector.apply(
        variables, images, content, train, denoising, layers, queries, mutable=mutable
    )
    return output, updated["statistics"] if train else statistics
