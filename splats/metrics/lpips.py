"""LPIPS v0.1, a learned distance of images (Zhang et al. 2018): smaller is more alike.

Both images go through a network for ImageNet. After each of five stages the features of a pixel are
normalized to unit length; their squared difference, weighted per channel, is averaged over the
pixels of the stage, and the five are added.

Three variants that must never be compared with each other, so that the name is part of the metric:
`alex` and `vgg` (AlexNet, VGG16; images scaled to [-1, 1], as the authors prescribe) and
`vgg_unnormalized` (images left in [0, 1], as INRIA's 3DGS and what followed it report "VGG").

Vocabulary: images are [H, W, 3] in [0, 1]; features [2, h, w, C] of both images at a stage.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from training.errors import ConfigError

# Of the network's inputs, per channel: the mean and deviation of ImageNet for images in [-1, 1].
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
EPSILON = 1e-10  # of the package, added to the length of features


class Layer(NamedTuple):
    """A convolution and the ReLU after it."""

    name: str  # of its tensors in the `lpips` package, without .weight and .bias
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    pool: int = 0  # side of the maximum pool of stride 2 before it; 0: none
    tap: bool = False  # a stage ends here

    @property
    def padding(self) -> int:
        return 2 if self.kernel > 3 else 1


NETWORKS: dict[str, tuple[Layer, ...]] = {
    "alex": (
        Layer("net.slice1.0", 3, 64, kernel=11, stride=4, tap=True),
        Layer("net.slice2.3", 64, 192, kernel=5, pool=3, tap=True),
        Layer("net.slice3.6", 192, 384, pool=3, tap=True),
        Layer("net.slice4.8", 384, 256, tap=True),
        Layer("net.slice5.10", 256, 256, tap=True),
    ),
    "vgg": (
        Layer("net.slice1.0", 3, 64),
        Layer("net.slice1.2", 64, 64, tap=True),
        Layer("net.slice2.5", 64, 128, pool=2),
        Layer("net.slice2.7", 128, 128, tap=True),
        Layer("net.slice3.10", 128, 256, pool=2),
        Layer("net.slice3.12", 256, 256),
        Layer("net.slice3.14", 256, 256, tap=True),
        Layer("net.slice4.17", 256, 512, pool=2),
        Layer("net.slice4.19", 512, 512),
        Layer("net.slice4.21", 512, 512, tap=True),
        Layer("net.slice5.24", 512, 512, pool=2),
        Layer("net.slice5.26", 512, 512),
        Layer("net.slice5.28", 512, 512, tap=True),
    ),
}
# Pixels a side from which on every stage has a feature.
SMALLEST = {"alex": 31, "vgg": 16}


class Variant(NamedTuple):
    """A network and how it is fed."""

    network: str
    scaled: bool  # images to [-1, 1] first


VARIANTS = {
    "alex": Variant("alex", True),
    "vgg": Variant("vgg", True),
    "vgg_unnormalized": Variant("vgg", False),
}


@dataclass(frozen=True, eq=False)
class Lpips:
    """A variant with its weights on the device, ready to compare images.

    Attributes:
      name: a key of VARIANTS.
      weights: `<layer>.weight` [out, in, k, k], `<layer>.bias` [out] and, for each of the five
        stages, `lin<stage>` [C], float32; see `splats.metrics.lpips_weights.read_weights`.
    """

    name: str
    weights: dict[str, jax.Array] = field(repr=False)

    def __call__(
        self, rendered: np.ndarray, true: np.ndarray, valid: np.ndarray | None = None
    ) -> float:
        """The distance of two images [H, W, 3], clipped to [0, 1]; `valid` [H, W] as `distance`."""
        variant = VARIANTS[self.name]
        check_size(self.name, true.shape[1], true.shape[0])
        mask = None if valid is None else jnp.asarray(valid, jnp.float32)
        pair = jnp.clip(jnp.stack([jnp.asarray(rendered), jnp.asarray(true)]), 0.0, 1.0)
        return float(_distance(self.weights, pair, mask, variant.network, variant.scaled))


def check_size(name: str, width: int, height: int) -> None:
    """Raises ConfigError for images that are too small for the network of a variant."""
    smallest = SMALLEST[VARIANTS[name].network]
    if min(width, height) < smallest:
        raise ConfigError(
            f"config.metrics.lpips = {name!r} needs images of at least {smallest}x{smallest} "
            f"pixels and the scene has one of {width}x{height}; shrink less (config.scene.factor) "
            "or leave the metric out"
        )


def distance(
    weights: dict[str, jax.Array],
    pair_2xHxWx3: jax.Array,
    mask_HxW: jax.Array | None,
    network: str,
    scaled: bool,
) -> jax.Array:
    """LPIPS of two images in [0, 1], a scalar.

    With a mask (1 keeps a pixel), masked pixels of the first image are replaced by the second's, as
    for SSIM, and the mean over a stage is weighted by the mask shrunk to its size, so that pixels
    that do not count do not thin the distance out. A mask of ones changes nothing.
    """
    if mask_HxW is not None:
        kept = mask_HxW[None, :, :, None] > 0
        pair_2xHxWx3 = jnp.where(kept, pair_2xHxWx3, pair_2xHxWx3[1:])
    if scaled:
        pair_2xHxWx3 = 2.0 * pair_2xHxWx3 - 1.0
    shift, scale = (jnp.asarray(values)[None, None, None, :] for values in (SHIFT, SCALE))
    features, stage, total = (pair_2xHxWx3 - shift) / scale, 0, jnp.zeros(())
    for layer in NETWORKS[network]:
        features = _apply(layer, weights, features)
        if layer.tap:
            total += _stage_distance(features, weights[f"lin{stage}"], mask_HxW)
            stage += 1
    return total


_distance = jax.jit(distance, static_argnames=("network", "scaled"))


def _apply(layer: Layer, weights: dict[str, jax.Array], features: jax.Array) -> jax.Array:
    if layer.pool:
        window, strides = (1, layer.pool, layer.pool, 1), (1, 2, 2, 1)
        features = lax.reduce_window(features, -jnp.inf, lax.max, window, strides, "VALID")
    features = lax.conv_general_dilated(
        features,
        weights[f"{layer.name}.weight"],
        window_strides=(layer.stride, layer.stride),
        padding=[(layer.padding, layer.padding)] * 2,
        dimension_numbers=("NHWC", "OIHW", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )
    return jax.nn.relu(features + weights[f"{layer.name}.bias"][None, None, None, :])


def _stage_distance(
    features: jax.Array, channel_weights: jax.Array, mask_HxW: jax.Array | None
) -> jax.Array:
    length = jnp.sqrt(jnp.sum(features * features, axis=3, keepdims=True))
    unit = features / (length + EPSILON)
    squared = (unit[0] - unit[1]) ** 2
    values = jnp.sum(squared * channel_weights[None, None, :], axis=2)
    if mask_HxW is None:
        return jnp.mean(values)
    share = jax.image.resize(mask_HxW, values.shape, "linear", antialias=True)
    return jnp.sum(values * share) / jnp.sum(share)
