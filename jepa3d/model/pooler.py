"""Attentive pooler: one learned query reads all tokens; for probes and published classifiers.

Self-attention blocks without position encoding, then a cross-attention block whose query skips the
norm and whose attention has no output projection, as in V-JEPA 2.
"""

from __future__ import annotations

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from jepa3d.config import ModelConfig, TransformerConfig
from jepa3d.model.attention import plain_attention
from jepa3d.model.vit import INITIALIZER, dense, gelu, layer_norm, stack_of_blocks

Params = dict[str, Any]


class CrossBlock(nn.Module):
    """query + attention(query, norm(tokens)), then + mlp(norm)."""

    config: TransformerConfig
    dtype: str

    @nn.compact
    def __call__(self, query_Bx1xD: jax.Array, tokens_BxNxD: jax.Array) -> jax.Array:
        config = self.config
        batch, dim, heads = tokens_BxNxD.shape[0], config.dim, config.heads
        normed = layer_norm("norm1")(tokens_BxNxD)
        q = dense(dim, self.dtype, "q")(query_Bx1xD).reshape(batch, 1, heads, -1)
        kv = dense(2 * dim, self.dtype, "kv")(normed).reshape(batch, -1, 2, heads, dim // heads)
        # With one query the scores are a single row per head: nothing for a kernel to save.
        mixed = plain_attention(q, kv[:, :, 0], kv[:, :, 1]).reshape(query_Bx1xD.shape)
        query_Bx1xD = query_Bx1xD + mixed
        hidden = dense(config.hidden, self.dtype, "fc1")(layer_norm("norm2")(query_Bx1xD))
        return query_Bx1xD + dense(dim, self.dtype, "fc2")(gelu(hidden))


class AttentivePooler(nn.Module):
    """[batch, tokens, dim] to [batch, dim]."""

    config: ModelConfig
    layers: int

    @nn.compact
    def __call__(self, tokens_BxNxD: jax.Array) -> jax.Array:
        config = self.config
        blocks = pooler_blocks(config, self.layers)
        if self.layers:
            tokens_BxNxD, _ = stack_of_blocks(blocks, config)(tokens_BxNxD, None)
        query = self.param("query", INITIALIZER, (blocks.dim,))
        query = jnp.broadcast_to(
            query.astype(tokens_BxNxD.dtype)[None, None], (tokens_BxNxD.shape[0], 1, blocks.dim)
        )
        return CrossBlock(blocks, config.dtype, name="cross")(query, tokens_BxNxD)[:, 0]


def pooler_blocks(config: ModelConfig, layers: int) -> TransformerConfig:
    """Blocks of the pooler: the encoder's width and heads, MLP ratio 4 as published."""
    # A config has at least one block; with 0 layers the stack is never built.
    return TransformerConfig(config.feature_dim, max(layers, 1), config.encoder.heads)


def pool(config: ModelConfig, params: dict[str, Any], tokens: jax.Array) -> jax.Array:
    """Pools encoder outputs: [batch, tokens, feature_dim] to [batch, feature_dim]."""
    layers = params["layers"]["qkv"]["bias"].shape[0] if "layers" in params else 0
    return cast(jax.Array, AttentivePooler(config, layers).apply({"params": params}, tokens))
