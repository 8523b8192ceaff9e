"""Losses against scikit-image, closed forms and exact derivatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import correlate1d
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from splats.losses import photometric as losses


@pytest.fixture
def images(new_key):
    """A smooth image and a noisy copy, [47, 61, 3]."""
    y, x = np.meshgrid(np.linspace(0, 4, 47), np.linspace(0, 5, 61), indexing="ij")
    smooth = 0.5 + 0.4 * np.stack([np.sin(x * y), np.cos(x + y), np.sin(2 * x)], axis=-1)
    target = jnp.asarray(smooth, jnp.float32)
    noise = 0.1 * jax.random.normal(new_key(), target.shape)
    return jnp.clip(target + noise, 0, 1), target


def skimage_map(predicted, target):
    return structural_similarity(
        np.asarray(predicted, np.float64),
        np.asarray(target, np.float64),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=-1,
        full=True,
    )


def test_metric_ssim_equals_scikit_image(images):
    expected, _ = skimage_map(*images)
    assert float(losses.metric_ssim(*images)) == pytest.approx(expected, abs=2e-5)


def test_valid_map_equals_scikit_images_interior(images):
    _, expected = skimage_map(*images)
    found = losses.ssim_map(*images, padding="valid")
    np.testing.assert_allclose(found, expected[5:-5, 5:-5], atol=2e-4)


def reference_map(predicted, target, padding):
    """The definition of Wang et al. (2004), blurred by scipy in the precision of its input."""
    window = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def blur(image):
        down = correlate1d(image, window, axis=0, mode="constant")
        return correlate1d(down, window, axis=1, mode="constant")

    mp, mt = blur(predicted), blur(target)
    vp, vt = blur(predicted**2) - mp**2, blur(target**2) - mt**2
    cov = blur(predicted * target) - mp * mt
    values = (2 * mp * mt + 1e-4) * (2 * cov + 9e-4) / ((mp**2 + mt**2 + 1e-4) * (vp + vt + 9e-4))
    return values if padding == "same" else values[5:-5, 5:-5]


def test_same_map_pads_both_images_with_zeros(images):
    expected = reference_map(*(np.asarray(i, np.float64) for i in images), "same")
    np.testing.assert_allclose(losses.ssim_map(*images, padding="same"), expected, atol=2e-4)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("shape", [(11, 11, 3), (12, 33, 1), (22, 23, 3), (54, 32, 2)])
def test_equal_images_have_ssim_one_at_any_size(new_key, padding, shape):
    image = jax.random.uniform(new_key(), shape)
    assert float(losses.ssim(image, image, padding=padding)) == pytest.approx(1.0, abs=1e-6)
    inner = shape if padding == "same" else (shape[0] - 10, shape[1] - 10, shape[2])
    assert losses.ssim_map(image, image, padding=padding).shape == inner


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_ssim_gradient_is_that_of_the_definition_in_double_precision(images, padding):
    """Every pixel, by complex steps, which cancel nothing; the image spans two blocks."""
    predicted, target = (i[:25, :13, :1] for i in images)
    exact, fixed = np.asarray(predicted, np.complex128), np.asarray(target, np.complex128)
    expected, step = np.zeros(exact.shape), 1e-20
    for pixel in np.ndindex(exact.shape):
        moved = exact.copy()
        moved[pixel] += 1j * step
        expected[pixel] = reference_map(moved, fixed, padding).mean().imag / step
    gradient = jax.jit(jax.grad(lambda image: losses.ssim(image, target, padding=padding)))
    tolerance = 3e-5 * np.abs(expected).max()
    np.testing.assert_allclose(gradient(predicted), expected, rtol=0, atol=tolerance)


def means(image, target, mask=None):
    """Both terms of the loss, divided by their weights."""
    terms = losses.loss_sums(image, target, mask)
    return {name: total / jnp.maximum(weight, 1.0) for name, (total, weight) in terms.items()}


def test_the_terms_are_mean_absolute_error_and_one_minus_ssim(images):
    found = means(*images)
    expected = np.abs(np.asarray(images[0], np.float64) - np.asarray(images[1])).mean()
    assert float(found["l1"]) == pytest.approx(expected, rel=1e-5)
    assert float(found["ssim"]) == pytest.approx(1 - float(losses.ssim(*images)), rel=1e-5)


def test_psnr_equals_scikit_image_and_clips_the_prediction(images):
    predicted, target = images
    expected = peak_signal_noise_ratio(np.asarray(target), np.asarray(predicted), data_range=1.0)
    assert float(losses.psnr(predicted, target)) == pytest.approx(expected, abs=1e-3)
    over = jnp.where(predicted == 1.0, 7.0, predicted)
    assert float(losses.psnr(over, target)) == pytest.approx(expected, abs=1e-3)


def test_the_mean_absolute_error_is_over_the_kept_pixels_and_all_channels(images):
    mask = jnp.zeros(images[0].shape[:2]).at[3:9, 5:6].set(1.0)
    expected = np.abs(np.asarray(images[0]) - np.asarray(images[1]))[3:9, 5:6].mean()
    assert float(means(*images, mask)["l1"]) == pytest.approx(expected, rel=1e-5)


def test_masked_pixels_change_neither_loss_nor_metrics(images):
    predicted, target = images
    mask = jnp.ones(target.shape[:2]).at[10:20, 30:50].set(0.0)
    spoiled = jnp.where(mask[:, :, None] > 0, predicted, 0.123)

    def evaluate(image):
        metrics = {"metric": losses.metric_ssim, "psnr": losses.psnr}
        scores = {name: score(image, target, mask) for name, score in metrics.items()}
        return means(image, target, mask) | scores

    for name, value in evaluate(predicted).items():
        assert float(evaluate(spoiled)[name]) == pytest.approx(float(value), rel=1e-6), name
    gradient = jax.grad(lambda i: sum(means(i, target, mask).values()))(predicted)
    assert np.all(np.asarray(gradient)[10:20, 30:50] == 0)


def test_a_mask_that_keeps_nothing_gives_finite_values(images):
    mask = jnp.zeros(images[0].shape[:2])
    assert all(np.isfinite(float(value)) for value in means(*images, mask).values())


def test_too_small_an_image_for_the_window_is_refused():
    with pytest.raises(ValueError, match="holds no 11x11 window"):
        losses.ssim(jnp.ones((9, 30, 3)), jnp.ones((9, 30, 3)), padding="valid")
    with pytest.raises(ValueError, match="padding 'mirror'"):
        losses.ssim(jnp.ones((30, 30, 3)), jnp.ones((30, 30, 3)), padding="mirror")
