"""The hybrid encoder (Zhao et al. 2024, "DETRs Beat YOLOs on Real-time Object Detection", 4.2).

Attention within the coarsest map only, then maps are fused from coarse to fine and back by
convolutions. Maps: P3, P4, P5, of strides 8, 16, 32, all of one width.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rtdetr.config import EncoderConfig
from rtdetr.model.layers import (
    ACTIVATIONS,
    Attention,
    ConvNorm,
    Dense,
    LayerNorm,
)
from rtdetr.model.positions import position_embedding


class AttentionLayer(nn.Module):
    """Post-norm transformer layer over the tokens of one map."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, x: jax.Array, positions: jax.Array, valid: jax.Array | None) -> jax.Array:
        placed = x + positions
        # Padding is no key; [batch, 1, 1, tokens].
        allowed = None if valid is None else valid[:, None, None, :]
        attention = Attention(self.config.heads, name="attention")
        x = LayerNorm(name="attention_norm")(x + attention(placed, placed, x, allowed))
        hidden = Dense(self.config.feed_forward, name="feed_forward_0")(x)
        hidden = ACTIVATIONS["gelu"](hidden)
        hidden = Dense(x.shape[-1], name="feed_forward_1")(hidden)
        return LayerNorm(name="feed_forward_norm")(x + hidden)


class RepVgg(nn.Module):
    """A 3 × 3 and a 1 × 1 convolution side by side, each with its norm (Ding et al. 2021).

    Folded, they are one convolution.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        features = x.shape[-1]
        if self.has_variable("params", "one"):
            return ConvNorm(features, 3, activation="silu", name="one")(x, train)
        wide = ConvNorm(features, 3, name="conv_3")(x, train)
        narrow = ConvNorm(features, 1, name="conv_1")(x, train)
        return jax.nn.silu(wide + narrow)


class Fusion(nn.Module):
    """CSPRep: one branch through RepVGG blocks, one past them, added."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        config = self.config
        hidden = int(config.width * config.expansion)
        through = ConvNorm(hidden, activation="silu", name="through")(x, train)
        for number in range(config.blocks):
            through = RepVgg(name=f"block_{number}")(through, train)
        past = ConvNorm(hidden, activation="silu", name="past")(x, train)
        joined = through + past
        if hidden != config.width:
            joined = ConvNorm(config.width, activation="silu", name="out")(joined, train)
        return joined


class HybridEncoder(nn.Module):
    """Backbone maps to fused maps of one width."""

    config: EncoderConfig

    @nn.compact
    def __call__(
        self, maps: Sequence[jax.Array], valid: Sequence[jax.Array] | None, train: bool
    ) -> list[jax.Array]:
        """`valid`: bool `[batch, height, width]` of each map; padding is not attended to."""
        config = self.config
        inner = [
            ConvNorm(config.width, name=f"input_{level}")(x, train) for level, x in enumerate(maps)
        ]
        inner[-1] = self._attended(inner[-1], None if valid is None else valid[-1])
        # Coarse to fine.
        fused = [inner[-1]]
        for step, low in enumerate(reversed(inner[:-1])):
            lateral = ConvNorm(config.width, activation="silu", name=f"lateral_{step}")
            fused[0] = lateral(fused[0], train)
            together = jnp.concatenate([doubled(fused[0]), low], axis=-1)
            fused.insert(0, Fusion(config, name=f"down_fusion_{step}")(together, train))
        # Fine to coarse.
        out = [fused[0]]
        for step, high in enumerate(fused[1:]):
            shrink = ConvNorm(config.width, 3, 2, "silu", name=f"shrink_{step}")
            together = jnp.concatenate([shrink(out[-1], train), high], axis=-1)
            out.append(Fusion(config, name=f"up_fusion_{step}")(together, train))
        return out

    def _attended(self, x: jax.Array, valid: jax.Array | None) -> jax.Array:
        batch, height, width, channels = x.shape
        table = position_embedding(height, width, channels, self.config.positions)
        tokens = x.reshape(batch, height * width, channels)
        flat = None if valid is None else valid.reshape(batch, -1)
        for number in range(self.config.layers):
            layer = AttentionLayer(self.config, name=f"attention_{number}")
            tokens = layer(tokens, jnp.asarray(table, x.dtype)[None], flat)
        return tokens.reshape(x.shape)


def doubled(x: jax.Array) -> jax.Array:
    """Nearest neighbor, twice as high and wide."""
    return x.repeat(2, axis=1).repeat(2, axis=2)
