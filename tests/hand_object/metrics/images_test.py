"""PSNR against its definition, SSIM against scikit-image."""

import numpy as np
import pytest

from hand_object.metrics.images import psnr, ssim


def test_psnr_of_a_constant_error():
    wanted = np.full((4, 5, 3), 0.4)
    assert psnr(wanted + 0.1, wanted) == pytest.approx(20)
    half = np.zeros((4, 5), bool)
    half[:2] = True
    shifted = wanted + np.where(half, 0.01, 0.1)[..., None]
    assert psnr(shifted, wanted, half) == pytest.approx(40)
    assert np.isnan(psnr(shifted, wanted, np.zeros((4, 5), bool)))


def test_ssim_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    random = np.random.default_rng(0)
    wanted = random.uniform(size=(24, 30, 3))
    found = np.clip(wanted + 0.1 * random.normal(size=wanted.shape), 0, 1)
    expected = metrics.structural_similarity(
        found, wanted, channel_axis=2, data_range=1.0, gaussian_weights=True,
        use_sample_covariance=False,
    )  # fmt: skip
    assert ssim(found, wanted) == pytest.approx(expected, abs=1e-9)
