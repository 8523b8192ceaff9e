"""Video weights as a start for grayscale volumes: the patch embedding, refitted exactly.

Every other tensor of a V-JEPA 2 checkpoint fits a grayscale model of the same width unchanged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jepa3d.config import ModelConfig
from training.errors import ConfigError

# Channel statistics that the published models normalize frames in [0, 1] with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def adapt_patch_embedding(
    patch: dict[str, np.ndarray],
    source: ModelConfig,
    tubelet: int,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> tuple[dict[str, np.ndarray], ModelConfig]:
    """Refits the patch embedding to one channel and longer tubelets.

    The channels are summed with their normalization folded in, W' = Σ_c W_c / s_c and
    b' = b - Σ_c (m_c / s_c) ΣW_c, so a gray volume in [0, 1] gives what three equal normalized
    channels gave. The kernel is then repeated along depth and divided by the number of repeats:
    exact on a volume in which every slice is doubled.

    Args:
        patch: {"kernel" [channels · t · p · p, dim], "bias" [dim]} of the source model.
        source: config of the source model.
        tubelet: slices per token of the new model, a multiple of the source's.
        mean, std: statistics per source channel.

    Returns:
        The new {"kernel", "bias"} in float32, and the config with its patch and channels (its
        volume keeps the same number of tokens).

    Raises:
        ConfigError: a tubelet that is no multiple, or statistics for another number of channels.
    """
    depth, height, width = source.patch
    if tubelet % depth or tubelet < depth:
        raise ConfigError(
            f"a tubelet of {tubelet} slices is no multiple of the checkpoint's {depth}; "
            "choose a multiple"
        )
    if not len(mean) == len(std) == source.channels:
        raise ConfigError(
            f"{len(mean)} means and {len(std)} stds for {source.channels} channels; give one each"
        )
    # In float64, so that the sum over channels is rounded once, at the end.
    kernel = np.asarray(patch["kernel"], np.float64)
    dim = kernel.shape[-1]
    kernel = kernel.reshape(source.channels, depth, height, width, dim)
    mean_c, std_c = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    gray = np.einsum("cdhwo,c->dhwo", kernel, 1 / std_c)
    bias = patch["bias"] - np.einsum("cdhwo,c->o", kernel, mean_c / std_c)
    repeats = tubelet // depth
    longer = np.repeat(gray, repeats, axis=0) / repeats
    adapted = {
        "kernel": longer.reshape(-1, dim).astype(np.float32),
        "bias": bias.astype(np.float32),
    }
    volume = (source.volume[0] * repeats, *source.volume[1:])
    config = dataclasses.replace(source, volume=volume, patch=(tubelet, height, width), channels=1)
    return adapted, config
