"""The TPU attention kernel that ships with jax, in the layout that suits narrow heads.

The last axis of an array fills 128 lanes of a TPU, or is padded to them: heads of 32 would take
four times their memory and bandwidth. So queries, keys, values, outputs and their gradients are
kept with tokens on the last axis. What remains is inside of the kernel: its matmuls over a head's
width fill 32 or 64 of 128 lanes of the matrix unit, and packing heads would not change that, since
each head has a score matrix of its own.
"""

from __future__ import annotations

from typing import Any, cast

import jax
from jax.experimental.layout import Layout, with_layout_constraint

from jepa3d.model.remat import ATTENTION
from training.errors import ConfigError

BLOCKS = (1024, 512, 384, 256, 128)  # largest first: fewer, fuller passes of the matrix unit
LANES = 128


def splash_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, interpret: bool = False
) -> jax.Array:
    """softmax(q kᵀ / sqrt(head_dim)) v on one device.

    Args:
        q: [batch, queries, heads, head_dim].
        k, v: [batch, keys, heads, head_dim].
        interpret: run without a TPU, slowly, for tests.

    Returns:
        [batch, queries, heads, head_dim] in q's dtype.

    Raises:
        ConfigError: a length that is no multiple of 128.
    """
    narrow = q.shape[-1] % LANES != 0
    kernel = _kernel(q.shape[1], k.shape[1], q.shape[2], narrow, interpret)
    # The kernel itself does not scale the scores.
    scaled = (q * q.shape[-1] ** -0.5).astype(q.dtype)
    out = jax.vmap(kernel)(*(_heads_first(x, narrow) for x in (scaled, k, v)))
    return _pinned(cast(jax.Array, out), narrow).swapaxes(1, 2)


def _heads_first(x: jax.Array, narrow: bool) -> jax.Array:
    return _pinned(x.swapaxes(1, 2), narrow)


def _pinned(x: jax.Array, narrow: bool) -> jax.Array:
    """[batch, heads, tokens, head_dim] with tokens last in memory, its gradient as well.

    Left alone, the compiler spreads the kernel's own padded layout of outputs and gradients over
    RoPE and the biases around it: half of the time outside of the kernels.
    """
    return with_layout_constraint(x, Layout(major_to_minor=(0, 1, 3, 2))) if narrow else x


def _kernel(queries: int, keys: int, heads: int, narrow: bool, interpret: bool) -> Any:
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel,
        splash_attention_mask,
    )

    query_block, key_block = _block(queries), _block(keys)
    layouts = splash_attention_kernel.QKVLayout
    layout = layouts.SEQ_MINOR if narrow else layouts.HEAD_DIM_MINOR
    return splash_attention_kernel.make_splash_mha(
        mask=splash_attention_mask.MultiHeadMask(
            [splash_attention_mask.FullMask((queries, keys))] * heads
        ),
        # Devices share the batch only (`attention._over_batch`): each sees all heads and tokens.
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
        residual_checkpoint_name=ATTENTION,
        block_sizes=splash_attention_kernel.BlockSizes(
            block_q=query_block,
            block_kv=key_block,
            block_kv_compute=key_block,
            block_q_dkv=query_block,
            block_kv_dkv=key_block,
            block_kv_dkv_compute=key_block,
            block_q_dq=query_block,
            block_kv_dq=key_block,
            q_layout=layout,
            k_layout=layout,
            v_layout=layout,
        ),
    )


def _block(length: int) -> int:
    for block in BLOCKS:
        if length % block == 0:
            return block
    raise ConfigError(
        f"the TPU attention kernel takes sequence lengths that are multiples of 128, got {length}; "
        "change masks.context_tokens and masks.target_tokens or set model.attention=chunked"
    )
