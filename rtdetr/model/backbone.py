"""ResNet-vd (He et al. 2019, "Bag of Tricks for Image Classification", variant D).

A stem of three convolutions instead of one of 7 × 7; where a shortcut has stride 2 it averages
before it projects, so that no value is dropped. Strides of the three maps that leave it: 8, 16, 32.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import numpy as np

from rtdetr.config import BackboneConfig
from rtdetr.model.layers import ConvNorm


class Shortcut(nn.Module):
    """Projection of the input of a stage's first block."""

    features: int
    stride: int
    frozen: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.stride == 2:
            x = average_pool(x)
        return ConvNorm(self.features, frozen=self.frozen, name="project")(x, train)


class Block(nn.Module):
    """A residual block, basic (3-3) or bottleneck (1-3-1, with the stride on the 3 × 3)."""

    kind: str
    width: int
    stride: int
    projected: bool
    frozen: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.kind == "basic":
            shapes = [(3, self.stride, self.width), (3, 1, self.width)]
        else:
            shapes = [(1, 1, self.width), (3, self.stride, self.width), (1, 1, 4 * self.width)]
        y = x
        for number, (side, stride, features) in enumerate(shapes):
            activation = "none" if number == len(shapes) - 1 else "relu"
            conv = ConvNorm(features, side, stride, activation, self.frozen, name=f"conv_{number}")
            y = conv(y, train)
        if self.projected:
            x = Shortcut(y.shape[-1], self.stride, self.frozen, name="shortcut")(x, train)
        return jax.nn.relu(x + y)


class Stage(nn.Module):
    """Blocks of one width."""

    config: BackboneConfig
    number: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        config, stride = self.config, 1 if self.number == 0 else 2
        for index in range(config.depths[self.number]):
            first = index == 0
            block = Block(
                config.block,
                config.widths[self.number],
                stride if first else 1,
                first,
                config.freeze_norm,
                name=f"block_{index}",
            )
            x = block(x, train)
        return x


class Stem(nn.Module):
    """Three convolutions; the first one halves the image."""

    config: BackboneConfig

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        frozen = self.config.freeze_norm
        for number, features in enumerate(self.config.stem):
            stride = 2 if number == 0 else 1
            x = ConvNorm(features, 3, stride, "relu", frozen, name=f"conv_{number}")(x, train)
        return x


class Backbone(nn.Module):
    """Images to maps of strides 8, 16 and 32."""

    config: BackboneConfig
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> list[jax.Array]:
        x = Stem(self.config, name="stem")(x, train)
        if self.config.freeze_stem:
            # The largest maps of the network: their backward pass would be for nothing.
            x = jax.lax.stop_gradient(x)
        x = max_pool(x)
        stage = nn.remat(Stage, static_argnums=(2,)) if self.remat else Stage
        maps = []
        for number in range(4):
            x = stage(self.config, number, name=f"stage_{number}")(x, train)
            maps.append(x)
        return maps[1:]


def max_pool(x: jax.Array) -> jax.Array:
    """3 × 3 with stride 2; the border counts as -inf."""
    # Of numpy: a constant that is traced has no derivative rule.
    lowest = np.array(-np.inf, x.dtype)
    pads = ((0, 0), (1, 1), (1, 1), (0, 0))
    return jax.lax.reduce_window(x, lowest, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pads)


def average_pool(x: jax.Array) -> jax.Array:
    """2 × 2 with stride 2; both sides are even."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
