"""The autoencoder of G-HOP's prior: an object's distances at 64^3 as a latent of 3 x 16^3.

A VQ-VAE (van den Oord et al. 2017) as SDFusion has it. The latent *before* quantization is what is
diffused; decoding quantizes it again. Letters as in `layers`; K codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from hand_object.prior.model.layers import Conv, group_norm, upsampled
from training.settings import setting

EPSILON = 1e-6  # of every norm


@dataclass(frozen=True)
class VqvaeConfig:
    """Sizes; each level but the last halves the side."""

    width: int = setting(64, least=8, most=1024)  # channels of the first level
    multiples: tuple[int, ...] = setting((1, 2, 4), least=1, most=16)  # of the width, by level
    codes: int = setting(8192, least=2, most=2**20)
    channels: int = setting(3, least=1, most=64)  # of the latent
    groups: int = setting(32, least=1, most=64)  # of the norms

    @property
    def factor(self) -> int:
        """By which the latent is shorter than the grid."""
        return 2 ** (len(self.multiples) - 1)


class Block(nn.Module):
    """Two convolutions with swish before each."""

    features: int
    groups: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = Conv(self.features, name="conv_1")(_swish_norm(self.groups, "norm_1", x))
        h = Conv(self.features, name="conv_2")(_swish_norm(self.groups, "norm_2", h))
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, name="shortcut")(x)
        return x + h


class VoxelAttention(nn.Module):
    """One head over all voxels."""

    groups: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        h = group_norm(self.groups, "norm", EPSILON)(x)
        query, key, value = (
            Conv(width, 1, name=name)(h).reshape(len(x), -1, width)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("bnc,bmc->bnm", query, key) * width**-0.5
        mixed = jnp.einsum("bnm,bmc->bnc", jax.nn.softmax(scores, axis=-1), value)
        return x + Conv(width, 1, name="out")(mixed.reshape(x.shape))


class Encoder(nn.Module):
    """[B, D, H, W, 1] -> [B, d, h, w, channels]."""

    config: VqvaeConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        config = self.config
        widths = [config.width * multiple for multiple in config.multiples]
        h = Conv(config.width, name="first")(x)
        for level, width in enumerate(widths):
            h = Block(width, config.groups, name=f"level_{level}")(h)
            if level < len(widths) - 1:
                # Padded at the far ends only.
                h = Conv(width, stride=2, pad=(0, 1), name=f"level_{level}_smaller")(h)
        h = _middle(config, h)
        h = _gelu_norm(config.groups, h)
        return Conv(config.channels, name="last")(h)


class Decoder(nn.Module):
    """[B, d, h, w, channels] -> [B, D, H, W, 1]."""

    config: VqvaeConfig

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        config = self.config
        widths = [config.width * multiple for multiple in config.multiples]
        h = _middle(config, Conv(widths[-1], name="first")(z))
        for level in reversed(range(len(widths))):
            h = Block(widths[level], config.groups, name=f"level_{level}")(h)
            if level:
                h = Conv(widths[level], name=f"level_{level}_larger")(upsampled(h))
        return Conv(1, name="last")(_gelu_norm(config.groups, h))


class Vqvae(nn.Module):
    """Encoder, codebook and decoder."""

    config: VqvaeConfig

    def setup(self):
        config = self.config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.to_code = Conv(config.channels, 1)
        self.from_code = Conv(config.channels, 1)
        spread = 1.0 / config.codes
        self.codebook = self.param(
            "codebook", _uniform(spread), (config.codes, config.channels), jnp.float32
        )

    def encode(self, x: jax.Array) -> jax.Array:
        """Distances in [-1, 1] -> the latent before quantization."""
        return self.to_code(self.encoder(x))

    def decode(self, z: jax.Array) -> jax.Array:
        return self.decoder(self.from_code(quantized(z, self.codebook)))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.decode(self.encode(x))


def quantized(z: jax.Array, codebook_KxC: jax.Array) -> jax.Array:
    """The nearest code of every voxel; gradients pass straight through (Bengio et al. 2013)."""
    flat = z.reshape(-1, z.shape[-1])
    squares = jnp.sum(flat**2, axis=-1, keepdims=True) + jnp.sum(codebook_KxC**2, axis=-1)[None]
    nearest = jnp.argmin(squares - 2.0 * flat @ codebook_KxC.T, axis=-1)
    return z + jax.lax.stop_gradient(codebook_KxC[nearest].reshape(z.shape) - z)


def _middle(config: VqvaeConfig, h: jax.Array) -> jax.Array:
    """Called inside of a compact module, whose parts these become."""
    h = Block(h.shape[-1], config.groups, name="middle_1")(h)
    h = VoxelAttention(config.groups, name="middle_attention")(h)
    return Block(h.shape[-1], config.groups, name="middle_2")(h)


def _swish_norm(groups: int, name: str, x: jax.Array) -> jax.Array:
    return jax.nn.silu(group_norm(groups, name, EPSILON)(x))


def _gelu_norm(groups: int, x: jax.Array) -> jax.Array:
    return jax.nn.gelu(group_norm(groups, "norm_last", EPSILON)(x), approximate=False)


def _uniform(spread: float):
    def start(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -spread, spread)

    return start
