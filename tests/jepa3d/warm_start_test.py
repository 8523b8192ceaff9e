"""The refitted patch embedding gives what the published one gave."""

from __future__ import annotations

import numpy as np
import pytest

from jepa3d.config import ModelConfig, TransformerConfig
from jepa3d.warm_start import IMAGENET_MEAN, IMAGENET_STD, adapt_patch_embedding
from training.errors import ConfigError

SOURCE = ModelConfig(
    volume=(4, 8, 8), patch=(2, 4, 4), channels=3, encoder=TransformerConfig(12, 1, 1)
)


def convolve(volume, patch, shape):
    """Strided convolution of [D, H, W, C] by definition, float64."""
    depth, height, width = (v // p for v, p in zip(volume.shape, shape))
    rows = [
        volume[
            d * shape[0] : (d + 1) * shape[0],
            h * shape[1] : (h + 1) * shape[1],
            w * shape[2] : (w + 1) * shape[2],
        ]
        .transpose(3, 0, 1, 2)
        .ravel()
        for d in range(depth)
        for h in range(height)
        for w in range(width)
    ]
    return np.stack(rows) @ patch["kernel"].astype(np.float64) + patch["bias"][None]


@pytest.fixture
def patch():
    rng = np.random.default_rng(0)
    return {"kernel": rng.normal(size=(96, 12)) * 0.02, "bias": rng.normal(size=12)}


@pytest.mark.parametrize("repeats", [1, 2, 4])
def test_gray_and_repeated_slices_give_the_same_tokens(patch, repeats):
    gray = np.random.default_rng(1).random((4, 8, 8, 1))
    color = (gray - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    adapted, config = adapt_patch_embedding(patch, SOURCE, 2 * repeats)
    assert config.grid == SOURCE.grid and config.channels == 1
    assert config.patch == (2 * repeats, 4, 4)
    expected = convolve(color, patch, SOURCE.patch)
    found = convolve(np.repeat(gray, repeats, axis=0), adapted, config.patch)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_tubelets_that_are_no_multiple_are_refused(patch):
    with pytest.raises(ConfigError, match="multiple"):
        adapt_patch_embedding(patch, SOURCE, 3)


def test_one_statistic_per_channel_is_needed(patch):
    with pytest.raises(ConfigError, match="3 channels"):
        adapt_patch_embedding(patch, SOURCE, 4, mean=(0.5,), std=(0.2,))
