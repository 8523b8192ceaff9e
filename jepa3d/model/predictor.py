"""Predictor: a narrow transformer that fills in features at target positions.

Context features are projected to the predictor's width, a learned mask token stands at every target
position, and all tokens attend to each other; positions enter by RoPE only. Attention is full, so
the order of tokens does not matter and the sort by id of the reference is left out.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jepa3d.config import ModelConfig
from jepa3d.model.vit import Rope, dense, gelu, layer_norm, stack_of_blocks


class Predictor(nn.Module):
    """Features at target positions from features at context positions."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, context_BxKxD: jax.Array, rope: Rope, mask_index: int
    ) -> tuple[jax.Array, jax.Array | None]:
        """Predicts targets.

        Args:
            context_BxKxD: [batch, context tokens, feature_dim] encoder outputs.
            rope: tables [batch or 1, context + target tokens, head_dim], context first.
            mask_index: which mask token stands for the targets.

        Returns:
            [batch, target tokens, feature_dim], and the same for the context tokens if the config
            has a context head, else None.
        """
        config = self.config
        dim = config.predictor.dim
        batch, visible, _ = context_BxKxD.shape
        mask_tokens = self.param(
            "mask_tokens", nn.initializers.zeros_init(), (config.mask_tokens, dim)
        )
        if config.levels > 1:
            fused = dense(config.encoder.dim, config.dtype, "fuse")(context_BxKxD)
            context_BxKxD = gelu(fused)
        context = dense(dim, config.dtype, "proj_in")(context_BxKxD)
        masked = mask_tokens[mask_index].astype(context.dtype)[None, None]
        masked = jnp.broadcast_to(masked, (batch, rope[0].shape[1] - visible, dim))
        tokens = jnp.concatenate([context, masked], axis=1)
        tokens, _ = stack_of_blocks(config.predictor, config)(tokens, rope)
        tokens = layer_norm("norm")(tokens)
        targets = dense(config.feature_dim, config.dtype, "proj_out")(tokens[:, visible:])
        if not config.context_head:
            return targets, None
        seen = dense(config.feature_dim, config.dtype, "proj_context")(tokens[:, :visible])
        return targets, seen
