"""Pre-norm transformer blocks with RoPE, stacked by a scan, and the visible-only encoder.

V-JEPA 2 (Assran et al. 2025): LayerNorm eps 1e-6, biases everywhere, exact erf GELU, no dropout.
All blocks share one parameter tree whose leaves carry the block index on axis 0.

Legend: B batch, N tokens, D width, H heads, h head width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jepa3d.config import ModelConfig, TransformerConfig
from jepa3d.model.attention import attention
from jepa3d.model.remat import kept
from jepa3d.model.rope import apply_rope, split_pairs

NORM_EPSILON = 1e-6
# torch.nn.init.trunc_normal_ cuts at ±2 absolute, 100 standard deviations: a plain normal.
INITIALIZER = nn.initializers.normal(0.02)
Rope = tuple[jax.Array, jax.Array]


def gelu(x: jax.Array) -> jax.Array:
    """x Φ(x) with the error function; cheaper on every backend than jax.nn.gelu's erfc."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * (0.5**0.5)))


def layer_norm(name: str) -> nn.LayerNorm:
    """LayerNorm in float32; the next Dense casts to its compute dtype."""
    # Fast variance, E[x²] - E[x]², loses its digits where the mean is large.
    return nn.LayerNorm(epsilon=NORM_EPSILON, dtype=jnp.float32, use_fast_variance=False, name=name)


def dense(features: int, dtype: str, name: str) -> nn.Dense:
    """Dense layer with the V-JEPA 2 initialization and float32 parameters."""
    return nn.Dense(features, dtype=jnp.dtype(dtype), kernel_init=INITIALIZER, name=name)


class FusedQkv(nn.Module):
    """One matmul for q, k and v; kernel [D, 3D] = q ‖ k ‖ v, heads in checkpoint order.

    Columns of q and k are brought to split-pair order (see `rope`) at run time: the kernel is small
    next to the activations, and stored weights keep the order of published checkpoints.
    """

    heads: int
    dtype: str
    rotary: bool

    @nn.compact
    def __call__(self, x_BxNxD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        dim = x_BxNxD.shape[-1]
        kernel = self.param("kernel", INITIALIZER, (dim, 3 * dim))
        bias = self.param("bias", nn.initializers.zeros_init(), (3 * dim,))
        if self.rotary:
            kernel, bias = (
                jnp.concatenate(
                    [split_pairs(w[..., : 2 * dim], 2 * self.heads), w[..., 2 * dim :]], axis=-1
                )
                for w in (kernel, bias)
            )
        dtype = jnp.dtype(self.dtype)
        fused = x_BxNxD.astype(dtype) @ kernel.astype(dtype) + bias.astype(dtype)[None, None]
        fused = fused.reshape(*fused.shape[:2], 3, self.heads, dim // self.heads)
        return fused[:, :, 0], fused[:, :, 1], fused[:, :, 2]


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    config: TransformerConfig
    dtype: str
    attention: str

    @nn.compact
    def __call__(self, x_BxNxD: jax.Array, rope: Rope | None) -> tuple[jax.Array, None]:
        config = self.config
        normed = layer_norm("norm1")(x_BxNxD)
        q, k, v = FusedQkv(config.heads, self.dtype, rope is not None, name="qkv")(normed)
        if rope is not None:
            q, k = apply_rope(q, *rope), apply_rope(k, *rope)
        mixed = attention(q, k, v, self.attention)
        mixed = mixed.reshape(x_BxNxD.shape)
        x_BxNxD = x_BxNxD + dense(config.dim, self.dtype, "out")(mixed)
        hidden = dense(config.hidden, self.dtype, "fc1")(layer_norm("norm2")(x_BxNxD))
        return x_BxNxD + dense(config.dim, self.dtype, "fc2")(gelu(hidden)), None


class CollectingBlock(Block):
    """A block that also hands its output to the scan, for deep supervision."""

    @nn.compact
    def __call__(self, x_BxNxD: jax.Array, rope: Rope | None) -> tuple[jax.Array, jax.Array]:
        x_BxNxD, _ = super().__call__(x_BxNxD, rope)
        return x_BxNxD, x_BxNxD


def stack_of_blocks(
    config: TransformerConfig, model: ModelConfig, collect: bool = False
) -> nn.Module:
    """`depth` blocks scanned over stacked parameters, named `layers`.

    Called with (tokens, rope); returns (tokens, None or the [depth, B, N, D] outputs).
    """
    block = CollectingBlock if collect else Block
    if model.remat != "none":
        # A scan already keeps XLA from merging the second computation with the first.
        block = nn.remat(block, prevent_cse=False, policy=kept(model.remat))
    scanned = nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType]
        length=config.depth,
        unroll=config.depth if model.unroll else 1,
    )
    return scanned(config, model.dtype, model.attention, name="layers")


class Encoder(nn.Module):
    """Patches of visible tokens to features; sees nothing of the tokens that were left out."""

    config: ModelConfig

    @nn.compact
    def __call__(self, patches_BxKxP: jax.Array, rope: Rope) -> jax.Array:
        """Returns [batch, K, feature_dim]: normed last output, or one normed block per level."""
        config = self.config
        tokens = dense(config.encoder.dim, config.dtype, "patch")(patches_BxKxP)
        collect = bool(config.supervise_layers)
        tokens, outputs = stack_of_blocks(config.encoder, config, collect)(tokens, rope)
        if not collect:
            return layer_norm("norm")(tokens)
        levels = [layer_norm(f"norm_{layer}")(outputs[layer]) for layer in config.supervise_layers]
        return jnp.concatenate(levels, axis=-1)
