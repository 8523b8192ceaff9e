"""Attention in memory linear in the number of tokens, in plain XLA.

Queries and keys are cut into blocks; a running maximum and sum (online softmax) joins the key
blocks (Rabe and Staats 2021, "Self-attention does not need O(n²) memory"; the backward pass
recomputes the probabilities from the saved log-sum-exp as in Dao et al. 2022, "FlashAttention",
algorithm 4).

Legend: B batch, H heads, Q/K queries and keys of a block, h head width, n blocks.
Inside this file arrays are [B, H, tokens, h] and float32.
"""

from __future__ import annotations

import functools
from typing import cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jepa3d.model.remat import ATTENTION

Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


def chunked_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, query_block: int = 512, key_block: int = 512
) -> jax.Array:
    """softmax(q kᵀ / sqrt(h)) v without the score matrix.

    Args:
        q: [batch, queries, heads, head_dim]; any length, any float dtype.
        k, v: [batch, keys, heads, head_dim].
        query_block, key_block: tokens per block.

    Returns:
        [batch, queries, heads, head_dim] in q's dtype; softmax and sums in float32.
    """
    queries, keys = q.shape[1], k.shape[1]
    query_block, key_block = min(query_block, queries), min(key_block, keys)
    # Scaled here, outside of the custom gradient, which then knows nothing of the scale.
    q_, k_, v_ = (x.astype(jnp.float32).swapaxes(1, 2) for x in (q * q.shape[-1] ** -0.5, k, v))
    q_ = _pad_tokens(q_, query_block)
    k_, v_ = _pad_tokens(k_, key_block), _pad_tokens(v_, key_block)
    out = cast(jax.Array, _attend(q_, k_, v_, keys, query_block, key_block))
    return out[:, :, :queries].swapaxes(1, 2).astype(q.dtype)


def _pad_tokens(x: jax.Array, block: int) -> jax.Array:
    missing = -x.shape[2] % block
    return jnp.pad(x, ((0, 0), (0, 0), (0, missing), (0, 0))) if missing else x


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _attend(q, k, v, keys: int, query_block: int, key_block: int) -> jax.Array:
    return _attend_forward(q, k, v, keys, query_block, key_block)[0]


def _attend_forward(
    q, k, v, keys: int, query_block: int, key_block: int
) -> tuple[jax.Array, Residuals]:
    k_nBHKh, v_nBHKh = _to_blocks(k, key_block), _to_blocks(v, key_block)
    bias_nK = _key_bias(k_nBHKh.shape[0], key_block, keys)

    def query_step(q_BHQh):
        shape = q_BHQh.shape[:-1]
        # exp(-inf - top) is 0 in the first step; top is finite there, since block 0 has a real key.
        start = (jnp.full(shape, -jnp.inf), jnp.zeros(shape), jnp.zeros_like(q_BHQh))

        def key_step(carry, block):
            top_BHQ, total_BHQ, sum_BHQh = carry
            k_BHKh, v_BHKh, bias_K = block
            scores = _scores(q_BHQh, k_BHKh, bias_K)
            new_top = jnp.maximum(top_BHQ, scores.max(-1))
            shrink = jnp.exp(top_BHQ - new_top)
            weights = jnp.exp(scores - new_top[..., None])
            total_BHQ = total_BHQ * shrink + weights.sum(-1)
            sum_BHQh = sum_BHQh * shrink[..., None] + _mix(weights, v_BHKh)
            return (new_top, total_BHQ, sum_BHQh), None

        (top, total, summed), _ = lax.scan(key_step, start, (k_nBHKh, v_nBHKh, bias_nK))
        return summed / total[..., None], top + jnp.log(total)

    out_n, log_total_n = lax.map(query_step, _to_blocks(q, query_block))
    # Named, so that blocks which recompute the rest need not repeat this (see `remat`).
    out = checkpoint_name(_from_blocks(out_n), ATTENTION)
    return out, (q, k, v, out, checkpoint_name(log_total_n, ATTENTION))


def _attend_backward(keys: int, query_block: int, key_block: int, residuals: Residuals, g):
    q, k, v, out, log_total_nBHQ = residuals
    k_nBHKh, v_nBHKh = _to_blocks(k, key_block), _to_blocks(v, key_block)
    bias_nK = _key_bias(k_nBHKh.shape[0], key_block, keys)
    # Equals the sum of weights * dweights over all keys, which no single block could form.
    delta = jnp.sum(g * out, axis=-1, keepdims=True)

    def query_step(key_gradients, block):
        q_BHQh, g_BHQh, delta_BHQ1, log_total_BHQ = block

        def key_step(dq_BHQh, block):
            k_BHKh, v_BHKh, bias_K, dk_BHKh, dv_BHKh = block
            # Probabilities at once from the saved log-sum-exp: no running maximum is needed here.
            weights = jnp.exp(_scores(q_BHQh, k_BHKh, bias_K) - log_total_BHQ[..., None])
            dv_BHKh = dv_BHKh + jnp.einsum("BHQK,BHQh->BHKh", weights, g_BHQh)
            dweights = jnp.einsum("BHQh,BHKh->BHQK", g_BHQh, v_BHKh)
            dscores = weights * (dweights - delta_BHQ1)
            dk_BHKh = dk_BHKh + jnp.einsum("BHQK,BHQh->BHKh", dscores, q_BHQh)
            return dq_BHQh + _mix(dscores, k_BHKh), (dk_BHKh, dv_BHKh)

        dq, key_gradients = lax.scan(
            key_step, jnp.zeros_like(q_BHQh), (k_nBHKh, v_nBHKh, bias_nK, *key_gradients)
        )
        return key_gradients, dq

    start = (jnp.zeros_like(k_nBHKh), jnp.zeros_like(v_nBHKh))
    blocks = (*(_to_blocks(x, query_block) for x in (q, g, delta)), log_total_nBHQ)
    (dk_n, dv_n), dq_n = lax.scan(query_step, start, blocks)
    return _from_blocks(dq_n), _from_blocks(dk_n), _from_blocks(dv_n)


_attend.defvjp(_attend_forward, _attend_backward)


def _scores(q_BHQh: jax.Array, k_BHKh: jax.Array, bias_K: jax.Array) -> jax.Array:
    return jnp.einsum("BHQh,BHKh->BHQK", q_BHQh, k_BHKh) + bias_K[None, None, None]


def _mix(weights_BHQK: jax.Array, v_BHKh: jax.Array) -> jax.Array:
    return jnp.einsum("BHQK,BHKh->BHQh", weights_BHQK, v_BHKh)


def _key_bias(blocks: int, key_block: int, keys: int) -> jax.Array:
    """0 for keys that exist and -inf for padding; every block has at least one that exists."""
    index = jnp.arange(blocks * key_block).reshape(blocks, key_block)
    return jnp.where(index < keys, 0.0, -jnp.inf)


def _to_blocks(x: jax.Array, block: int) -> jax.Array:
    batch, heads, tokens, width = x.shape
    return x.reshape(batch, heads, tokens // block, block, width).transpose(2, 0, 1, 3, 4)


def _from_blocks(x_n: jax.Array) -> jax.Array:
    blocks, batch, heads, block, width = x_n.shape
    return x_n.transpose(1, 2, 0, 3, 4).reshape(batch, heads, blocks * block, width)
