"""Attention between voxels, and of voxels to the condition (Rombach et al. 2022, `attention.py`).

Letters: B batch, N tokens (voxels in D, H, W order), C channels, K numbers of the condition.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from hand_object.prior.model.layers import Conv, group_norm


class Attention(nn.Module):
    """Multi-head attention of queries to a context; no bias before the last product.

    Attributes:
      head: channels of a head.
    """

    head: int

    @nn.compact
    def __call__(self, x_BxNxC: jax.Array, context: jax.Array) -> jax.Array:
        width = x_BxNxC.shape[-1]
        heads = width // self.head

        def split(name: str, values: jax.Array) -> jax.Array:
            made = nn.Dense(width, use_bias=False, name=name)(values)
            return made.reshape(*made.shape[:2], heads, self.head)

        query, key, value = split("query", x_BxNxC), split("key", context), split("value", context)
        scores = jnp.einsum("bnhc,bmhc->bhnm", query, key) * self.head**-0.5
        mixed = jnp.einsum("bhnm,bmhc->bnhc", jax.nn.softmax(scores, axis=-1), value)
        return nn.Dense(width, name="out")(mixed.reshape(x_BxNxC.shape))


class GatedFeedForward(nn.Module):
    """GEGLU (Shazeer 2020), four times as wide inside."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        values, gates = jnp.split(nn.Dense(8 * width, name="inner")(x), 2, axis=-1)
        return nn.Dense(width, name="out")(values * jax.nn.gelu(gates, approximate=False))


class Transformer(nn.Module):
    """One block over all voxels: to each other, to the condition, then alone.

    Attributes:
      head: channels of a head.
      groups: of the norm.
    """

    head: int
    groups: int

    @nn.compact
    def __call__(self, x: jax.Array, condition_BxTxK: jax.Array) -> jax.Array:
        width = x.shape[-1]
        tokens = group_norm(self.groups, "norm", 1e-6)(x)
        tokens = Conv(width, 1, name="in")(tokens).reshape(x.shape[0], -1, width)

        def norm(number: int) -> jax.Array:
            return nn.LayerNorm(epsilon=1e-5, name=f"norm_{number}")(tokens)

        own = norm(1)
        tokens = tokens + Attention(self.head, name="self")(own, own)
        tokens = tokens + Attention(self.head, name="cross")(norm(2), condition_BxTxK)
        tokens = tokens + GatedFeedForward(name="feed_forward")(norm(3))
        return x + Conv(width, 1, zero=True, name="out")(tokens.reshape(x.shape))
