"""What the backward pass of a block computes again under each policy, read off its program."""

from __future__ import annotations

from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from jax.interpreters import partial_eval
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from jepa3d.config import ModelConfig, TransformerConfig
from jepa3d.model.vit import stack_of_blocks

SHAPE = TransformerConfig(48, 2, 2)
POLICIES = ("none", "save_matmuls", "save_attention", "block")


def operations(remat, attention):
    """How often each primitive stands in the gradient of a stack of blocks, outside of kernels."""
    model = ModelConfig(encoder=SHAPE, remat=remat, attention=attention)
    blocks = stack_of_blocks(SHAPE, model)
    x = jnp.zeros((1, 128, SHAPE.dim))
    rope = (jnp.ones((1, 128, SHAPE.head_dim)), jnp.zeros((1, 128, SHAPE.head_dim)))
    params = jax.eval_shape(lambda: blocks.init(jax.random.key(0), x, rope))

    def loss(params):
        return blocks.apply(params, x, rope)[0].sum()

    device = AbstractDevice(device_kind="TPU v4", num_cores=1, platform="tpu")
    mesh = AbstractMesh((1, 1), ("data", "fsdp"), (AxisType.Auto,) * 2, abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        program = jax.make_jaxpr(jax.grad(loss))(params).jaxpr
    # As XLA does: what nobody reads is not computed.
    used, _ = partial_eval.dce_jaxpr(program, [True] * len(program.outvars))
    return counted(used)


def counted(jaxpr):
    total = Counter()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        total[name if name != "pallas_call" else equation.params["name"]] += 1
        if name != "pallas_call":
            for inner in jax.core.jaxprs_in_params(equation.params):
                total += counted(inner)
    return total


# Matmuls of a block: 4 dense layers forward, twice as many backward, and one small product before
# the kernel's backward pass. Again: q k v, `out` and the first of the MLP; nobody needs the last.
@pytest.mark.parametrize(
    ("remat", "matmuls", "erfs", "attentions"),
    [
        ("none", 13, 1, 1),
        ("save_matmuls", 13, 2, 1),
        ("save_attention", 16, 2, 1),
        ("block", 16, 2, 2),
    ],
)
def test_a_policy_repeats_what_it_says_and_no_more(remat, matmuls, erfs, attentions):
    found = operations(remat, "auto")
    assert found["dot_general"] == matmuls
    assert found["erf"] == erfs
    assert found["splash_mha_fwd_residuals"] == attentions


def test_chunked_attention_is_kept_like_the_kernel():
    """Its loops are scans: over blocks of queries, and of keys."""
    loops = {remat: operations(remat, "chunked")["scan"] for remat in POLICIES}
    assert loops["none"] == loops["save_matmuls"] == loops["save_attention"] < loops["block"]
