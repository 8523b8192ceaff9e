"""The 3-D U-Net that guesses the noise in an interaction grid (SDFusion's, as G-HOP uses it).

The time and the condition (one token, an embedding of the object's category) are given to it. The
full size has about 47 M parameters; the mini is the same code. Letters as in `layers`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from hand_object.prior.model.attention import Transformer
from hand_object.prior.model.layers import Conv, from_patches, group_norm, to_patches, upsampled
from training.errors import ConfigError
from training.settings import setting


@dataclass(frozen=True)
class UnetConfig:
    """The form of the network; channels of the grid and of the condition are its inputs'."""

    width: int = setting(64, least=8, most=1024)  # channels of the first level
    multiples: tuple[int, ...] = setting((1, 2, 3), least=1, most=16)  # of the width, by level
    blocks: int = setting(3, least=1, most=8)  # per level; one more on the way up
    attended: tuple[int, ...] = setting((1, 2), least=0, most=8)  # levels with attention
    head: int = setting(64, least=4, most=1024)  # channels of an attention head
    groups: int = setting(32, least=1, most=64)  # of the norms
    dropout: float = setting(0.1, least=0, below=1)
    patch: int = setting(1, least=1, most=4)  # cubes of this side are one voxel to the network
    positions: bool = False  # a learned value for each voxel of the first level
    condition: int = setting(768, least=1, most=4096)  # numbers of the category's embedding
    # A network too narrow to pass noise through guesses the clean grid; the noise follows from it.
    guesses: str = setting("noise", choices=("noise", "clean"))

    def __post_init__(self):
        widths = [self.width * multiple for multiple in self.multiples]
        for width in widths:
            if width % self.groups:
                raise ConfigError(
                    f"unet.groups = {self.groups} does not divide {width} channels of a level; "
                    "change unet.width, unet.multiples or unet.groups"
                )
        for level in self.attended:
            if level >= len(widths) or widths[level] % self.head:
                raise ConfigError(
                    f"unet.attended names level {level}, which is missing or whose channels are "
                    f"no multiple of unet.head = {self.head}"
                )

    @property
    def levels(self) -> int:
        return len(self.multiples)


MINI_UNET = UnetConfig(
    width=36,
    multiples=(1, 1),
    blocks=1,
    attended=(1,),
    head=18,
    groups=6,
    dropout=0.0,
    patch=2,
    positions=True,
    condition=16,
    guesses="clean",
)


def step_embedding(steps: jax.Array, width: int) -> jax.Array:
    """[B] original step numbers -> [B, width]: cosines, then sines, of falling frequencies."""
    half = width // 2
    rates = jnp.exp(-math.log(10_000) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = steps.astype(jnp.float32)[:, None] * rates[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class Residual(nn.Module):
    """Two convolutions; the time scales and shifts what is between them.

    Attributes:
      features: channels of the result.
    """

    features: int
    config: UnetConfig
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array) -> jax.Array:
        groups = self.config.groups
        h = Conv(self.features, name="conv_in")(jax.nn.silu(group_norm(groups, "norm_in")(x)))
        affine = nn.Dense(2 * self.features, name="time")(jax.nn.silu(time))
        scale, shift = jnp.split(affine[:, None, None, None], 2, axis=-1)
        h = jax.nn.silu(group_norm(groups, "norm_out")(h) * (1.0 + scale) + shift)
        h = nn.Dropout(self.config.dropout, deterministic=not self.train)(h)
        h = Conv(self.features, zero=True, name="conv_out")(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, name="shortcut")(x)
        return x + h


class Unet(nn.Module):
    """See the module docstring.

    Attributes:
      train: whether parts are dropped, which needs a `dropout` key.
    """

    config: UnetConfig
    train: bool = False

    @nn.compact
    def __call__(self, noisy: jax.Array, steps: jax.Array, condition: jax.Array) -> jax.Array:
        """Grid [B, D, H, W, C], original steps [B] int, condition [B, K] -> a guess like the grid.

        The guess is of the noise or of the clean grid, by `config.guesses`.
        """
        config, channels = self.config, noisy.shape[-1]
        time = nn.Dense(4 * config.width, name="time_in")(step_embedding(steps, config.width))
        time = nn.Dense(4 * config.width, name="time_out")(jax.nn.silu(time))
        token = condition[:, None]
        # Voxels of a patch are neighbors already.
        side = 3 if config.patch == 1 else 1
        h = Conv(config.width, side, name="first")(to_patches(noisy, config.patch))
        if config.positions:
            h = h + self.param("positions", nn.initializers.normal(0.02), h.shape[1:])[None]
        kept = [h]
        for level, multiple in enumerate(config.multiples):
            for block in range(config.blocks):
                attended = level in config.attended
                h = self._block(f"down_{level}_{block}", multiple, attended, h, time, token)
                kept.append(h)
            if level < config.levels - 1:
                h = Conv(h.shape[-1], stride=2, pad=(1, 1), name=f"down_{level}_smaller")(h)
                kept.append(h)
        deepest = config.multiples[-1]
        h = self._block("middle_0", deepest, bool(config.attended), h, time, token)
        h = self._block("middle_1", deepest, False, h, time, token)
        for level in reversed(range(config.levels)):
            for block in range(config.blocks + 1):
                joined = jnp.concatenate([h, kept.pop()], axis=-1)
                multiple, attended = config.multiples[level], level in config.attended
                h = self._block(f"up_{level}_{block}", multiple, attended, joined, time, token)
            if level:
                h = Conv(h.shape[-1], name=f"up_{level}_larger")(upsampled(h))
        h = jax.nn.silu(group_norm(config.groups, "norm_last")(h))
        h = Conv(config.patch**3 * channels, side, zero=True, name="last")(h)
        return from_patches(h, config.patch)

    def _block(self, name: str, multiple: int, attended: bool, h, time, token) -> jax.Array:
        config = self.config
        h = Residual(multiple * config.width, config, self.train, name=name)(h, time)
        if attended:
            h = Transformer(config.head, config.groups, name=f"{name}_attention")(h, token)
        return h
