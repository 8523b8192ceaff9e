"""Every attention implementation computes the same function and the same gradient."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from jepa3d.model.attention import attention, plain_attention
from jepa3d.model.chunked_attention import chunked_attention
from jepa3d.model.splash_attention import splash_attention
from training.config import MeshConfig
from training.errors import ConfigError
from training.mesh import make_mesh

PLAIN = jax.jit(plain_attention)


def inputs(key, queries, keys, heads=2, width=16, batch=2):
    """Queries, keys and values, drawn on the host: a draw on the device compiles each shape."""
    shapes = ((batch, queries, heads, width), *[(batch, keys, heads, width)] * 2)
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    return tuple(jnp.asarray(random.normal(size=shape), jnp.float32) for shape in shapes)


def numpy_attention(q, k, v):
    q, k, v = (np.asarray(x, np.float64).swapaxes(1, 2) for x in (q, k, v))
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True) @ v).swapaxes(1, 2)


def output_and_gradients(function, arrays, weight):
    def scalar(q, k, v):
        out = function(q, k, v)
        return jnp.sum(out.astype(jnp.float32) * weight), out

    (_, out), gradients = jax.jit(jax.value_and_grad(scalar, (0, 1, 2), has_aux=True))(*arrays)
    return out, gradients


def assert_same_function(function, arrays, weight, tolerance=2e-5):
    out, gradients = output_and_gradients(function, arrays, weight)
    expected, wanted = output_and_gradients(plain_attention, arrays, weight)
    np.testing.assert_allclose(out, expected, atol=tolerance)
    for found, reference in zip(gradients, wanted):
        np.testing.assert_allclose(found, reference, atol=tolerance)


def test_plain_is_softmax_attention(new_key):
    arrays = inputs(new_key(), 37, 21)
    np.testing.assert_allclose(PLAIN(*arrays), numpy_attention(*arrays), atol=1e-6)


@pytest.mark.parametrize(("queries", "keys"), [(96, 64), (33, 47), (1, 50), (50, 1), (7, 7)])
def test_chunked_equals_plain_also_when_blocks_do_not_divide(new_key, queries, keys):
    weight = jax.random.normal(new_key(), (2, queries, 2, 16))

    def function(q, k, v):
        return chunked_attention(q, k, v, query_block=16, key_block=32)

    assert_same_function(function, inputs(new_key(), queries, keys), weight)


def test_chunked_stays_finite_on_extreme_scores(new_key):
    q, k, v = inputs(new_key(), 40, 40)
    weight = jnp.ones((2, 40, 2, 16))

    def function(q, k, v):
        return chunked_attention(q, k, v, 16, 16)

    out, gradients = output_and_gradients(function, (1e4 * q, k, v), weight)
    assert all(bool(jnp.isfinite(x).all()) for x in (out, *gradients))


def test_chunked_keeps_the_dtype_and_computes_in_float32(new_key):
    arrays = inputs(new_key(), 64, 64)
    halves = tuple(x.astype(jnp.bfloat16) for x in arrays)
    out = chunked_attention(*halves, 16, 16)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        out.astype(jnp.float32),
        numpy_attention(*(h.astype(jnp.float32) for h in halves)),
        atol=0.02,
    )


@pytest.mark.parametrize("width", [32, 64])
def test_splash_equals_plain_in_interpret_mode(new_key, width):
    arrays = inputs(new_key(), 256, 128, width=width, batch=1)
    weight = jax.random.normal(new_key(), (1, 256, 2, width))

    def function(q, k, v):
        return splash_attention(q, k, v, interpret=True)

    assert_same_function(function, arrays, weight)


def ambient(data, fsdp, model=1):
    """A mesh of virtual devices, to be set with `jax.set_mesh`."""
    return make_mesh(MeshConfig(data, fsdp, model), jax.devices()[: data * fsdp * model])


@pytest.mark.parametrize("mesh", [(2, 2), (4, 1), (1, 2, 2), None], ids=str)
def test_splash_equals_plain_under_any_ambient_mesh_and_without(new_key, mesh):
    arrays = inputs(new_key(), 128, 128, width=32, batch=4)
    weight = jax.random.normal(new_key(), (4, 128, 2, 32))

    def function(q, k, v):
        return attention(q, k, v, "splash", interpret=True)

    with jax.set_mesh(ambient(*mesh)) if mesh else contextlib.nullcontext():
        out, gradients = output_and_gradients(function, arrays, weight)
    expected, wanted = output_and_gradients(plain_attention, arrays, weight)
    for found, reference in zip((out, *gradients), (expected, *wanted)):
        np.testing.assert_allclose(found, reference, atol=2e-5)


def test_splash_takes_a_batch_that_does_not_divide_over_the_mesh(new_key):
    arrays = inputs(new_key(), 128, 128, batch=3)
    with jax.set_mesh(ambient(2, 2)):
        out = jax.jit(lambda q, k, v: attention(q, k, v, "splash", interpret=True))(*arrays)
    np.testing.assert_allclose(out, PLAIN(*arrays), atol=2e-5)


def test_each_device_runs_splash_on_its_own_part_of_the_batch():
    """Otherwise four chips would do the work of one, four times."""
    x = jax.ShapeDtypeStruct((8, 128, 2, 64), jnp.bfloat16)
    mesh = tpu_mesh(data=2, fsdp=2)
    with jax.sharding.use_abstract_mesh(mesh):
        jaxpr = str(jax.make_jaxpr(attention)(x, x, x))
    assert "shard_map" in jaxpr and "bf16[2,128,2,64]" in jaxpr


def tpu_mesh(data, fsdp):
    """The mesh of a TPU pod that nothing on this machine is attached to."""
    device = AbstractDevice(device_kind="TPU v4", num_cores=1, platform="tpu")
    axes = ("data", "fsdp", "model")
    return AbstractMesh((data, fsdp, 1), axes, (AxisType.Auto,) * 3, abstract_device=device)


def test_auto_asks_the_devices_of_the_ambient_mesh_not_those_of_this_machine():
    x = jax.ShapeDtypeStruct((4, 256, 2, 64), jnp.bfloat16)
    assert "pallas_call" not in str(jax.make_jaxpr(attention)(x, x, x))
    with jax.sharding.use_abstract_mesh(tpu_mesh(data=2, fsdp=2)):
        assert "pallas_call" in str(jax.make_jaxpr(attention)(x, x, x))


def test_splash_refuses_lengths_that_the_kernel_cannot_take(new_key):
    with pytest.raises(ConfigError, match=r"multiples of 128, got 300; change masks\."):
        splash_attention(*inputs(new_key(), 300, 300), interpret=True)


def test_unknown_implementation_is_refused(new_key):
    with pytest.raises(ConfigError, match="flash3"):
        attention(*inputs(new_key(), 4, 4), "flash3")


def test_auto_takes_plain_for_short_and_chunked_for_long_sequences():
    def jaxpr(tokens):
        x = jax.ShapeDtypeStruct((1, tokens, 6, 64), jnp.float32)
        return str(jax.make_jaxpr(attention)(x, x, x))

    assert "scan" not in jaxpr(512)
    assert "scan" in jaxpr(9216)


def test_splash_lowers_for_tpu_without_a_tpu():
    x = jax.ShapeDtypeStruct((2, 512, 2, 64), jnp.bfloat16)

    def scalar(q, k, v):
        return attention(q, k, v, "splash").astype(jnp.float32).sum()

    traced = jax.jit(jax.grad(scalar, (0, 1, 2))).trace(x, x, x)
    assert "tpu_custom_call" in traced.lower(lowering_platforms=("tpu",)).as_text()


@pytest.mark.parametrize("implementation", ["plain", "chunked"])
def test_xla_implementations_lower_for_gpu_without_a_gpu(implementation):
    x = jax.ShapeDtypeStruct((2, 1024, 2, 64), jnp.bfloat16)

    def run(q, k, v):
        return attention(q, k, v, implementation)

    assert jax.jit(run).trace(x, x, x).lower(lowering_platforms=("cuda",)).as_text()


MEMORY_PROGRAM = """
import re, jax, jax.numpy as jnp
from jepa3d.config import TransformerConfig
from jepa3d.model.vit import Block
block = Block(TransformerConfig(384, 1, 6), "float32", "auto")
x, table = jnp.ones((1, 9216, 384)), jnp.ones((1, 9216, 64))
params = block.init(jax.random.key(0), x[:, :2], (table[:, :2], table[:, :2]))
def loss(params, x):
    return block.apply(params, x, (table, table))[0].sum()

jax.block_until_ready(jax.jit(jax.grad(loss, (0, 1)))(params, x))
# Not ru_maxrss: on Linux that begins at the size of the process that started this one.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 2**20)
"""


@pytest.mark.slow
def test_a_layer_on_a_whole_volume_stays_under_two_gibibytes():
    """Forward and backward at 9,216 tokens; the float32 score matrix alone would be 1.9 GiB."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_PROGRAM], capture_output=True, text=True, check=True
    )
    gibibytes = float(done.stdout)
    print(f"peak memory {gibibytes:.2f} GiB")
    assert gibibytes < 2.0
