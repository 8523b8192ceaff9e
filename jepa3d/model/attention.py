"""Softmax attention: one function, one implementation per backend, equality-tested.

`splash`  TPU kernel of jax.experimental.pallas; lengths must be multiples of 128.
`cudnn`   GPU flash attention of cuDNN through jax.nn.
`chunked` XLA in blocks with a hand-written backward pass: memory linear in tokens.
`plain`   the definition; keeps the score matrix.
`auto`    splash on TPU, cudnn on GPU in half precision (cuDNN has no float32), else by size: plain
          while the score matrix is small (it is faster then), chunked beyond.

Shapes here are [batch, tokens, heads, head_dim]. There is no mask: JEPA attention is full.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from jepa3d.model.chunked_attention import chunked_attention
from jepa3d.model.splash_attention import splash_attention
from training.errors import ConfigError
from training.mesh import platform

PLAIN_SCORE_BYTES = 64 * 2**20  # of float32 scores; above it chunked wins on memory and on time


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    implementation: str = "auto",
    *,
    interpret: bool = False,
) -> jax.Array:
    """softmax(q kᵀ / sqrt(head_dim)) v.

    Args:
        q: [batch, queries, heads, head_dim].
        k, v: [batch, keys, heads, head_dim].
        implementation: "auto", "plain", "chunked", "splash" or "cudnn".
        interpret: run splash without a TPU, slowly, for tests.

    Returns:
        [batch, queries, heads, head_dim] in q's dtype; softmax in float32.

    Raises:
        ConfigError: unknown implementation, or lengths that the TPU kernel cannot take.
    """
    chosen = _resolve(q, k) if implementation == "auto" else implementation
    if chosen == "plain":
        return plain_attention(q, k, v)
    if chosen == "chunked":
        return chunked_attention(q, k, v)
    if chosen == "cudnn":
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
    if chosen == "splash":
        kernel = functools.partial(splash_attention, interpret=interpret)
        return _over_batch(kernel, q.shape[0])(q, k, v)
    raise ConfigError(
        f"model.attention is {implementation!r}; choose auto, plain, chunked, splash or cudnn"
    )


def _resolve(q: jax.Array, k: jax.Array) -> str:
    kind = platform()
    if kind == "tpu" and not (q.shape[1] % 128 or k.shape[1] % 128):
        return "splash"
    if kind == "gpu" and q.dtype in (jnp.bfloat16, jnp.float16):
        return "cudnn"
    batch, queries, heads, _ = q.shape
    score_bytes = 4 * batch * heads * queries * k.shape[1]
    return "plain" if score_bytes <= PLAIN_SCORE_BYTES else "chunked"


def plain_attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """The definition, with the full score matrix in float32.

    Probabilities are divided by their sum after the mix: one pass less over the score matrix.
    """
    scores = jnp.einsum(
        "bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32
    )
    # Subtracting any constant leaves softmax as it is, so its gradient is not needed.
    top = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    weights = jnp.exp(scores - top)
    total = weights.sum(axis=-1, keepdims=True)
    mixed = jnp.einsum(
        "bhqk,bkhd->bhqd", weights.astype(v.dtype), v, preferred_element_type=jnp.float32
    )
    return (mixed / total).swapaxes(1, 2).astype(q.dtype)


def _over_batch(function: Callable[..., jax.Array], batch: int) -> Callable[..., jax.Array]:
    """`function` on each device's part of the batch, over the ambient mesh (`jax.set_mesh`).

    XLA refuses to split a Mosaic kernel over devices by itself. A batch that does not divide is
    computed whole by every device, which is right and wasteful; training never has one.
    """
    mesh = jax.sharding.get_abstract_mesh()
    free = {n for n, kind in zip(mesh.axis_names, mesh.axis_types) if kind != AxisType.Manual}
    if mesh.empty or not free:  # one device, or already inside a shard_map
        return function
    axes = tuple(name for name in ("data", "fsdp") if name in free)
    parts = math.prod(mesh.shape[name] for name in axes)
    spec = PartitionSpec(axes if batch % parts == 0 else None)
    return jax.shard_map(function, in_specs=(spec, spec, spec), out_specs=spec, check_vma=False)
