"""What a block keeps of its forward pass for the backward pass, and what it computes again.

A chip's memory is filled by what is kept. Norms, RoPE and GELU are cheap to repeat and large to
keep; dense layers cost operations; attention costs most of all and its kept output is small.
docs/performance.md has the figures for each policy.
"""

from __future__ import annotations

from collections.abc import Callable

import jax

# Attention implementations give this name to what their own backward passes need.
ATTENTION = "attention"


def kept(remat: str) -> Callable[..., bool]:
    """The policy for `jax.checkpoint` that a value of `config.model.remat` stands for."""
    policies = jax.checkpoint_policies
    attention = policies.save_only_these_names(ATTENTION)
    if remat == "save_matmuls":
        # Dense layers only: the score matrix of plain attention is a product with batch axes.
        return policies.save_from_both_policies(
            policies.dots_with_no_batch_dims_saveable, attention
        )
    return attention if remat == "save_attention" else policies.nothing_saveable
