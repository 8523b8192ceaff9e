"""Convolutions and norms as PyTorch's detectors define them, on `[batch, height, width, channel]`.

*Statistics* are running mean and variance of a batch norm, and all four vectors of a frozen one:
constants that live beside the parameters, not among them. In a *folded* network (`folding.py`)
convolutions have a bias in place of the norm behind them.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

EPSILON = 1e-5  # of every norm
MOMENTUM = 0.1  # of the new batch in the running statistics
Activation = Callable[[jax.Array], jax.Array]

ACTIVATIONS: dict[str, Activation] = {
    "none": lambda x: x,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    # Exact, by erf: the tanh form differs by up to 5e-4.
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}


def along_last(vector: jax.Array, x: jax.Array) -> jax.Array:
    """A vector over the last axis of `x`, with as many axes as `x`."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Convolution with symmetric padding (side - 1) / 2; kernel `[side, side, in, out]`.

    A kernel of one pixel is a matrix product: on a CPU its backward pass takes a fraction of the
    time of a convolution's, elsewhere they are equal.
    """
    side = kernel.shape[0]
    if side == 1:
        x = x[:, ::stride, ::stride]
        # Of two axes: with four, the backward pass on a CPU takes up to five times as long.
        return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:3], -1)
    # Not "SAME": with stride 2 that pads 0 before and 1 after.
    pad = (side - 1) // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


class BatchNorm(nn.Module):
    """Batch norm; statistics of the whole global batch, since the step sees all of it.

    Attributes:
      frozen: a fixed affine map; its four vectors are statistics, and none is trained.
    """

    frozen: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """fp32 inside; returns the dtype of `x`."""
        size, dtype = x.shape[-1], x.dtype
        mean = self.variable("statistics", "mean", jnp.zeros, (size,))
        variance = self.variable("statistics", "var", jnp.ones, (size,))
        if self.frozen:
            scale = self.variable("statistics", "scale", jnp.ones, (size,)).value
            bias = self.variable("statistics", "bias", jnp.zeros, (size,)).value
        else:
            scale = self.param("scale", nn.initializers.ones, (size,))
            bias = self.param("bias", nn.initializers.zeros, (size,))
        if self.frozen or not train:
            center, spread = mean.value, variance.value
            if self.frozen:
                center, spread = jax.lax.stop_gradient((center, spread))
        else:
            wide = x.astype(jnp.float32)
            center = jnp.mean(wide, axis=(0, 1, 2))
            spread = jnp.mean(jnp.square(wide - along_last(center, x)), axis=(0, 1, 2))
            if not self.is_initializing():
                count = x.size // size
                unbiased = spread * (count / max(count - 1, 1))
                mean.value += MOMENTUM * (center - mean.value)
                variance.value += MOMENTUM * (unbiased - variance.value)
        factor = scale * jax.lax.rsqrt(spread + EPSILON)
        shift = bias - center * factor
        return (x * along_last(factor, x) + along_last(shift, x)).astype(dtype)


def plus_folded(x: jax.Array, bias: jax.Array, train: bool) -> jax.Array:
    """Adds the bias of a folded convolution, which has no norm left that could be trained."""
    if train:
        raise ValueError("a folded network does not train; fold a copy of the weights for use")
    return x + along_last(bias.astype(x.dtype), x)


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, activation; folded, a convolution with bias."""

    features: int
    side: int = 1
    stride: int = 1
    activation: str = "none"
    frozen: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        shape = (self.side, self.side, x.shape[-1], self.features)
        kernel = self.param("kernel", kernel_init, shape)
        x = convolve(x, kernel.astype(x.dtype), self.stride)
        if self.has_variable("params", "bias"):
            x = plus_folded(x, self.get_variable("params", "bias"), train)
        else:
            x = BatchNorm(self.frozen, name="norm")(x, train)
        return ACTIVATIONS[self.activation](x)


class Dense(nn.Module):
    """x W + b over the last axis, in the dtype of `x`."""

    features: int
    kernel_init: Callable | None = None  # None: that of PyTorch, `kernel_init`
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init or kernel_init, shape)
        bias = self.param("bias", self.bias_init, (self.features,))
        product = jax.lax.dot_general(x, kernel.astype(x.dtype), (((x.ndim - 1,), (0,)), ((), ())))
        return product + along_last(bias.astype(x.dtype), product)


class Mlp(nn.Module):
    """Dense layers with ReLU between them.

    Attributes:
      widths: of all layers, the last one included.
      zero_last: kernel and bias of the last layer start at zero.
    """

    widths: tuple[int, ...]
    activation: str = "relu"
    zero_last: bool = False
    kernel_init: Callable | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for number, width in enumerate(self.widths):
            last = number == len(self.widths) - 1
            init = nn.initializers.zeros if last and self.zero_last else self.kernel_init
            x = Dense(width, kernel_init=init, name=f"layer_{number}")(x)
            x = x if last else ACTIVATIONS[self.activation](x)
        return x


class LayerNorm(nn.Module):
    """Over the last axis, fp32 inside; returns the dtype of its input."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        wide = x.astype(jnp.float32)
        wide -= wide.mean(axis=-1, keepdims=True)
        wide *= jax.lax.rsqrt(jnp.square(wide).mean(axis=-1, keepdims=True) + EPSILON)
        return (wide * along_last(scale, x) + along_last(bias, x)).astype(x.dtype)


class Attention(nn.Module):
    """Multi-head attention; queries and keys carry positions, values do not."""

    heads: int

    @nn.compact
    def __call__(
        self, query: jax.Array, key: jax.Array, value: jax.Array, allowed: jax.Array | None
    ) -> jax.Array:
        """`[B, N, D]`; `allowed` bool, broadcast to `[B, heads, N, K]`, None allows all."""
        width = query.shape[-1]

        def split(x: jax.Array, name: str) -> jax.Array:
            x = Dense(width, kernel_init=xavier, name=name)(x)
            return x.reshape(*x.shape[:-1], self.heads, width // self.heads)

        q, k, v = split(query, "query"), split(key, "key"), split(value, "value")
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32)
        logits *= (width // self.heads) ** -0.5
        if allowed is not None:
            logits = jnp.where(allowed, logits, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
        return Dense(width, name="out")(mixed.reshape(query.shape))


xavier = nn.initializers.xavier_uniform()
# Kaiming uniform with a = sqrt(5), PyTorch's own: uniform within 1 / sqrt(fan_in).
kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
