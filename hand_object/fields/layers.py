"""Dense layers with weight normalization, and the stack of them that every field is made of.

Weight normalization (Salimans and Kingma 2016): kernel = gain * direction / |direction|, per
output. Matrix products are float32 at the highest precision, or bfloat16 with float32 sums where
`compute` says so; everything else is float32.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

Layer = dict[str, jax.Array]
Params = dict[str, Any]


def dense(kernel: jax.Array, bias: jax.Array) -> Layer:
    """A layer of a kernel [inputs, outputs] and a bias [outputs]; gains start at the norms."""
    return {"direction": kernel, "gain": jnp.linalg.norm(kernel, axis=0), "bias": bias}


def normal_dense(key: jax.Array, inputs: int, outputs: int, gain: float = math.sqrt(2.0)) -> Layer:
    """A layer with weights N(0, gain / sqrt(inputs)) and no bias."""
    scale = gain / math.sqrt(inputs)
    return dense(scale * jax.random.normal(key, (inputs, outputs)), jnp.zeros(outputs))


def kernel_of(layer: Layer) -> jax.Array:
    """The effective kernel [inputs, outputs]."""
    direction = layer["direction"]
    squares = jnp.sum(jnp.square(direction), axis=0)
    return direction * (layer["gain"] * jax.lax.rsqrt(jnp.maximum(squares, 1e-24)))[None]


def product(x: jax.Array, kernel: jax.Array, compute: str = "float32") -> jax.Array:
    """x @ kernel with a float32 result."""
    if compute == "bfloat16":
        return jnp.dot(
            x.astype(jnp.bfloat16),
            kernel.astype(jnp.bfloat16),
            preferred_element_type=jnp.float32,
        )
    return jnp.dot(x, kernel, precision=jax.lax.Precision.HIGHEST)


def apply(layer: Layer, x: jax.Array, compute: str = "float32") -> jax.Array:
    """[N, inputs] -> [N, outputs]."""
    return product(x, kernel_of(layer), compute) + layer["bias"][None]


@jax.custom_jvp
def soft_relu(x: jax.Array) -> jax.Array:
    """log(1 + exp(x)), finite everywhere; its derivative is the logistic function."""
    return jnp.maximum(x, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@soft_relu.defjvp
def _soft_relu_jvp(primals, tangents):
    (x,), (tangent,) = primals, tangents
    return soft_relu(x), jax.nn.sigmoid(x) * tangent


def sharp_soft_relu(x: jax.Array, sharpness: float) -> jax.Array:
    """log(1 + exp(sharpness x)) / sharpness: a ReLU that is smooth over 1 / sharpness."""
    return soft_relu(sharpness * x) / sharpness


def widths(inputs: int, width: int, layers: int, skip: int | None) -> list[tuple[int, int]]:
    """(inputs, outputs) of each hidden layer; the layer before `skip` leaves room for the input."""
    sizes = []
    for layer in range(layers):
        fan_in = inputs if layer == 0 else width
        sizes.append((fan_in, width - inputs if skip == layer + 1 else width))
    return sizes


def hidden(
    layers: Params, x: jax.Array, *, skip: int | None, sharpness: float | None, compute: str
) -> jax.Array:
    """The hidden layers "0", "1", … of `layers`, without the last one.

    Args:
      x: [N, inputs]; joins again before layer `skip`, both parts divided by sqrt(2).
      sharpness: of the softplus; None: ReLU.
    """
    h = x
    for number in range(len(layers) - 1):
        if number == skip:
            h = jnp.concatenate([h, x], axis=-1) / math.sqrt(2.0)
        h = apply(layers[str(number)], h, compute)
        h = jax.nn.relu(h) if sharpness is None else sharp_soft_relu(h, sharpness)
    return h


def last(layers: Params) -> Layer:
    """The output layer."""
    return layers[str(len(layers) - 1)]
