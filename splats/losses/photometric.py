"""Image losses and metrics: L1, SSIM, PSNR.

SSIM (Wang et al. 2004) uses a Gaussian window of 11 pixels with sigma 1.5 and population
covariances. At the border there are two conventions, never to be mixed in one comparison: "same"
pads the images with zeros (Kerbl et al. 2023), "valid" keeps only windows inside of the image.

The window is applied to one axis at a time, as a product of blocks of 32 pixels with a [32, 22]
band matrix: on CPU more than ten times faster, forward and backward, than a depthwise convolution
or a sum of shifted images. Four blurred maps suffice, since SSIM needs only the sum of the two
variances.

Vocabulary: images are [height, width, channel] in [0, 1]; masks [height, width], 1 keeps a pixel.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

WINDOW = 11
SIGMA = 1.5
BLOCK = 22  # outputs of one matrix product, from 22 + 10 = 32 inputs
C1, C2 = 0.01**2, 0.03**2  # Wang et al.'s K1, K2 for a dynamic range of 1
NO_ERROR = 1e-20  # mean squared error at which PSNR ends, 200 dB, instead of at infinity
HIGHEST = jax.lax.Precision.HIGHEST


Sums = tuple[jax.Array, jax.Array]  # a sum of errors, and what it is divided by


def loss_sums(
    predicted: jax.Array, target: jax.Array, mask: jax.Array | None = None
) -> dict[str, Sums]:
    """The two image terms of 3DGS for one view, unweighted: `l1`, and `ssim` as 1 - SSIM.

    Masked pixels count in neither (SSIM sees them equal in both images). L1 stays a sum over
    pixels and channels, so that each pixel of a batch weighs the same; SSIM is averaged within the
    view first, so that each *view* weighs the same, however much of it a mask keeps.
    """
    absolute, count = jnp.abs(predicted - target), jnp.float32(target.size)
    if mask is not None:
        absolute = absolute * mask[:, :, None]
        count = target.shape[2] * jnp.sum(mask)
    similarity = ssim(predicted, target, mask=mask)
    return {"l1": (jnp.sum(absolute), count), "ssim": (1.0 - similarity, jnp.float32(1.0))}


def opacity_error(alpha: jax.Array, target: jax.Array, mask: jax.Array | None = None) -> Sums:
    """Absolute error of accumulated opacity [H, W] over the pixels that the mask keeps."""
    absolute = jnp.abs(alpha - target)
    if mask is None:
        return jnp.sum(absolute), jnp.float32(target.size)
    return jnp.sum(absolute * mask), jnp.sum(mask)


def psnr(predicted: jax.Array, target: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Peak signal-to-noise ratio in dB over the kept pixels, peak 1; `predicted` is clipped."""
    difference = jnp.clip(predicted, 0.0, 1.0) - target
    return -10.0 * jnp.log10(jnp.maximum(_masked_mean(difference * difference, mask), NO_ERROR))


def metric_ssim(
    predicted: jax.Array, target: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """SSIM for reporting: clipped prediction, windows inside of the image only."""
    return ssim(jnp.clip(predicted, 0.0, 1.0), target, padding="valid", mask=mask)


def ssim(
    predicted: jax.Array,
    target: jax.Array,
    *,
    padding: str = "same",
    mask: jax.Array | None = None,
) -> jax.Array:
    """Mean structural similarity, a scalar.

    With a mask, masked pixels of `predicted` are replaced by the target's and only windows whose
    center is kept are averaged.
    """
    if padding not in ("same", "valid"):
        raise ValueError(f"padding {padding!r}: use 'same' or 'valid'")
    if mask is not None:
        # Not zeros: they would put an edge into every window that reaches over the mask's border.
        predicted = jnp.where(mask[:, :, None] > 0, predicted, target)
    values = ssim_map(predicted, target, padding=padding)
    if mask is not None and padding == "valid":
        mask = mask[WINDOW // 2 : -(WINDOW // 2), WINDOW // 2 : -(WINDOW // 2)]
    return _masked_mean(values, mask)


def ssim_map(predicted: jax.Array, target: jax.Array, *, padding: str) -> jax.Array:
    """Structural similarity per window: [H, W, C] ("same") or [H - 10, W - 10, C] ("valid")."""
    height, width, channels = predicted.shape
    if padding == "valid" and min(height, width) < WINDOW:
        raise ValueError(f"an image of {height}x{width} holds no {WINDOW}x{WINDOW} window")
    p, t = predicted.transpose(2, 0, 1), target.transpose(2, 0, 1)
    # Variances as mean of squares minus square of mean, which needs one pass over the images.
    blurred = _blur(jnp.concatenate([p, t, p * p + t * t, p * t]), padding)
    mean_p, mean_t, squares, product = blurred.reshape(4, channels, *blurred.shape[1:])
    means_product, means_squared = mean_p * mean_t, mean_p * mean_p + mean_t * mean_t
    luminance = (2 * means_product + C1) / (means_squared + C1)
    structure = (2 * (product - means_product) + C2) / (squares - means_squared + C2)
    return (luminance * structure).transpose(2, 1, 0)


def gaussian_window() -> np.ndarray:
    """The 11 weights, float64, sum 1."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * SIGMA**2))
    return weights / weights.sum()


def _band_matrix() -> np.ndarray:
    """[BLOCK + 10, BLOCK]: column i weights the inputs i .. i + 10 of output i."""
    matrix = np.zeros((BLOCK + WINDOW - 1, BLOCK))
    for tap, weight in enumerate(gaussian_window()):
        matrix += weight * np.eye(BLOCK + WINDOW - 1, BLOCK, k=-tap)
    return matrix.astype(np.float32)


def _blur(maps: jax.Array, padding: str) -> jax.Array:
    """Blurs both axes of [M, H, W]; returns [M, W', H'], transposed to save a copy."""
    count, height, width = maps.shape
    rows = _blur_last_axis(maps.reshape(count * height, width), padding)
    turned = rows.reshape(count, height, -1).transpose(0, 2, 1)
    columns = _blur_last_axis(turned.reshape(-1, height), padding)
    return columns.reshape(count, turned.shape[1], -1)


def _blur_last_axis(rows: jax.Array, padding: str) -> jax.Array:
    """[R, W] -> [R, W] with zeros outside ("same") or [R, W - 10] ("valid")."""
    count, width = rows.shape
    before = WINDOW // 2 if padding == "same" else 0
    outputs = width + 2 * before - (WINDOW - 1)
    blocks = -(-outputs // BLOCK)
    # One block more than there are outputs: the last window reaches 10 values into it.
    rows = jnp.pad(rows, ((0, 0), (before, (blocks + 1) * BLOCK - width - before)))
    own = rows[:, : blocks * BLOCK].reshape(count, blocks, BLOCK)
    following = rows[:, BLOCK:].reshape(count, blocks, BLOCK)[:, :, : WINDOW - 1]
    windows = jnp.concatenate([own, following], axis=2)
    blurred = jnp.einsum("rbi,io->rbo", windows, _band_matrix(), precision=HIGHEST)
    return blurred.reshape(count, blocks * BLOCK)[:, :outputs]


def _masked_mean(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Mean of [H, W, C] over the pixels that the mask keeps; 0 if it keeps none."""
    if mask is None:
        return jnp.mean(values)
    weights = jnp.broadcast_to(mask[:, :, None].astype(values.dtype), values.shape)
    return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1.0)
