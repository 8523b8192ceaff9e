"""Layers of U-Net and VQ-VAE, as PyTorch defines them, on `[batch, depth, height, width, channel]`.

Kernels are [depth, height, width, in, out]. Letters: B batch, D, H, W voxels, C channels.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

_NAMES = ("NDHWC", "DHWIO", "NDHWC")


def group_norm(groups: int, name: str, epsilon: float = 1e-5) -> nn.GroupNorm:
    return nn.GroupNorm(groups, epsilon=epsilon, name=name)


class Conv(nn.Module):
    """A convolution of cubes; the default keeps the size.

    Attributes:
      features: channels of the result.
      side: of the kernel.
      stride: of the result.
      pad: voxels before and after each axis; None is (side - 1) / 2 on both ends.
      zero: starts at zero, so that what it ends has no effect at first.
    """

    features: int
    side: int = 3
    stride: int = 1
    pad: tuple[int, int] | None = None
    zero: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        # Of a normal variance scaled by the inputs, whatever the size of the kernel.
        start = nn.initializers.zeros if self.zero else nn.initializers.lecun_normal()
        shape = (self.side, self.side, self.side, x.shape[-1], self.features)
        kernel = self.param("kernel", start, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        half = (self.side - 1) // 2
        pad = (half, half) if self.pad is None else self.pad
        return convolve(x, kernel, self.stride, pad) + bias.reshape(1, 1, 1, 1, -1)


def convolve(
    x: jax.Array, kernel: jax.Array, stride: int = 1, pad: tuple[int, int] = (1, 1)
) -> jax.Array:
    """The same on every platform; on a CPU by what is fastest there."""
    side = kernel.shape[0]
    if side == 1 and stride == 1 and not any(pad):
        return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0, 0]).reshape(*x.shape[:-1], -1)

    def whole(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride,) * 3, (pad,) * 3, dimension_numbers=_NAMES
        )

    if stride != 1:
        return whole(x, kernel)
    return jax.lax.platform_dependent(
        x, kernel, cpu=lambda x, k: _by_planes(x, k, pad), default=whole
    )


def _by_planes(x: jax.Array, kernel: jax.Array, pad: tuple[int, int]) -> jax.Array:
    """A sum of flat convolutions, one for each plane of the kernel.

    With the backward pass, 2.7 times as fast as a convolution of cubes on a CPU (16^3 voxels of 24
    channels).
    """
    batch, _, height, width, channels = x.shape
    padded = jnp.pad(x, ((0, 0), pad, (0, 0), (0, 0), (0, 0)))
    depth = padded.shape[1] - kernel.shape[0] + 1
    total = None
    for plane in range(kernel.shape[0]):
        flat = padded[:, plane : plane + depth].reshape(-1, height, width, channels)
        part = jax.lax.conv_general_dilated(
            flat, kernel[plane], (1, 1), (pad, pad), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        total = part if total is None else total + part
    assert total is not None
    return total.reshape(batch, depth, *total.shape[1:])


def upsampled(x: jax.Array) -> jax.Array:
    """Every voxel becomes a cube of eight."""
    batch, depth, height, width, channels = x.shape
    small = x[:, :, None, :, None, :, None]
    cubes = jnp.broadcast_to(small, (batch, depth, 2, height, 2, width, 2, channels))
    return cubes.reshape(batch, 2 * depth, 2 * height, 2 * width, channels)


def to_patches(x: jax.Array, side: int) -> jax.Array:
    """[B, D, H, W, C] -> [B, D/side, H/side, W/side, side^3 C]."""
    if side == 1:
        return x
    batch, depth, height, width, channels = x.shape
    cut = x.reshape(batch, depth // side, side, height // side, side, width // side, side, channels)
    small = cut.transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return small.reshape(*small.shape[:4], side**3 * channels)


def from_patches(x: jax.Array, side: int) -> jax.Array:
    """The inverse of `to_patches`."""
    if side == 1:
        return x
    batch, depth, height, width, _ = x.shape
    cut = x.reshape(batch, depth, height, width, side, side, side, -1)
    whole = cut.transpose(0, 1, 4, 2, 5, 3, 6, 7)
    return whole.reshape(batch, depth * side, height * side, width * side, -1)
