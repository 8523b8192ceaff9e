"""Resampling: positions in mm, amounts of light, padding and the retina are where they belong."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.ndimage
import skimage.filters

from jepa3d.data import SkipVolume
from jepa3d.data.resample import axis_weights, to_grid
from jepa3d.data.retina import foreground_tokens, otsu_threshold, retina_center
from jepa3d.phantom import FIELD_MM, retina

WINDOW = (6.0, 1.92, 6.0)
SHAPE, PATCH = (16, 64, 64), (4, 16, 16)


def grid_of(pixels, spacing, window=WINDOW, shape=SHAPE):
    return to_grid(pixels, spacing, shape=shape, patch=PATCH, window_mm=window)


def test_area_weights_are_exact_block_means():
    weights, valid = axis_weights(12, 0.5, 0.0, 1.5, 4)
    expected = np.kron(np.eye(4), np.ones((1, 3)) / 3)
    np.testing.assert_allclose(weights.toarray(), expected, atol=1e-6)
    assert valid == (0, 4)


def test_linear_weights_agree_with_scipy_zoom():
    values = np.random.default_rng(0).normal(size=10)
    weights, _ = axis_weights(10, 1.0, 0.0, 0.5, 20)
    expected = scipy.ndimage.zoom(values, 2, order=1, grid_mode=True, mode="nearest")
    np.testing.assert_allclose(weights @ values, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("count", "step", "bins"), [(61, 0.1, 64), (512, 0.0117, 64), (128, 0.047, 64)]
)
def test_every_covered_bin_has_weights_that_sum_to_one(count, step, bins):
    weights, (low, high) = axis_weights(count, step, 0.5 * (count * step - 6.0), 6.0 / bins, bins)
    sums = np.asarray(weights.sum(axis=1)).ravel()
    np.testing.assert_allclose(sums[low:high], 1.0, atol=1e-5)
    assert sums[:low].sum() == sums[high:].sum() == 0


def test_a_ramp_keeps_its_physical_slope_along_each_axis():
    for axis in range(3):
        shape = [24, 240, 120]
        spacing = tuple(w / n for w, n in zip(WINDOW, shape))
        ramp = np.rint(np.linspace(20, 220, shape[axis]))
        pixels = np.broadcast_to(
            np.expand_dims(ramp, [a for a in range(3) if a != axis]), shape
        ).astype(np.uint8)
        grid = grid_of(pixels, spacing).volume.astype(float)
        profile = grid.mean(axis=tuple(a for a in range(3) if a != axis))
        centers = (np.arange(SHAPE[axis]) + 0.5) / SHAPE[axis]
        inner = slice(2, -2)
        expected = 20 + 200 * (centers * shape[axis] - 0.5) / (shape[axis] - 1)
        np.testing.assert_allclose(profile[inner], expected[inner], atol=2.0)


def test_one_object_has_one_size_in_mm_whatever_the_scanner_sampling():
    """A ball of 0.5 mm radius covers the same voxels from two very different scans."""
    found = []
    for shape in ((64, 442, 256), (61, 248, 192)):
        spacing = tuple(f / n for f, n in zip((6.0, 1.92, 6.0), shape))
        axes = [(np.arange(n) + 0.5) * s - f / 2 for n, s, f in zip(shape, spacing, WINDOW)]
        radius = np.sqrt(sum(np.meshgrid(*[a**2 for a in axes], indexing="ij", sparse=True)))
        pixels = np.where(radius < 0.5, 200, 20).astype(np.uint8)
        found.append(grid_of(pixels, spacing).volume > 110)
    overlap = np.logical_and(*found).sum() / np.logical_or(*found).sum()
    assert overlap > 0.95
    extents = [np.ptp(np.nonzero(found[0])[a]) + 1 for a in range(3)]
    lengths = np.array(extents) * np.array(WINDOW) / np.array(SHAPE)
    np.testing.assert_allclose(lengths, 1.0, atol=0.4)


def test_a_small_scan_is_padded_with_background_and_marked():
    generator = np.random.default_rng(0)
    pixels = generator.integers(40, 60, (30, 120, 60)).astype(np.uint8)
    pixels[:, 50:70] += 150
    grid = grid_of(pixels, (0.1, 0.008, 0.05))  # 3.0 x 0.96 x 3.0 mm
    extent = grid.valid_box[:, 1] - grid.valid_box[:, 0]
    np.testing.assert_array_equal(extent, np.array(SHAPE) // 2)
    assert grid.valid_fraction == pytest.approx(1 / 8)
    outside = np.ones(SHAPE, bool)
    outside[tuple(slice(a, b) for a, b in grid.valid_box)] = False
    assert np.ptp(grid.volume[outside]) == 0
    valid = grid.volume[~outside]
    assert np.percentile(valid, 4) - 1 <= grid.volume[outside][0] <= np.percentile(valid, 6)
    assert grid.mean == pytest.approx(valid.mean() / 255, abs=1e-6)
    assert grid.std == pytest.approx(valid.std() / 255, abs=1e-6)


def test_the_retina_is_centered_in_depth():
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 20, (10, 800, 64)).astype(np.uint8)
    pixels[:, 460:540] = 180  # well below the middle of a 3.2 mm deep scan
    pixels[3, :40] = 255  # a saturated band of one B-scan changes nothing
    assert retina_center(pixels) == pytest.approx(499.5, abs=8)
    grid = grid_of(pixels, (0.6, 0.004, 0.09))
    profile = grid.volume.mean(axis=(0, 2))
    rows = np.flatnonzero(profile > 100)
    assert abs(rows.mean() - 31.5) < 2


def test_a_scan_that_is_smaller_than_the_window_stays_whole():
    pixels = np.random.default_rng(0).integers(0, 20, (10, 200, 64)).astype(np.uint8)
    pixels[:, 150:190] = 180
    box = grid_of(pixels, (0.6, 0.004, 0.09)).valid_box  # 0.8 mm deep
    assert box[1, 1] - box[1, 0] == pytest.approx(0.8 / 1.92 * 64, abs=1)


def test_resize_covers_the_grid_and_reports_the_spacing():
    pixels = np.random.default_rng(0).integers(0, 255, (20, 100, 80)).astype(np.uint8)
    grid = grid_of(pixels, (0.1, 0.005, 0.02), window=None)
    assert grid.valid_fraction == 1.0
    np.testing.assert_allclose(grid.spacing_mm, (2.0 / 16, 0.5 / 64, 1.6 / 64))


def test_a_flat_window_is_refused():
    with pytest.raises(SkipVolume, match="spread"):
        grid_of(np.full((10, 200, 60), 7, np.uint8), (0.1, 0.005, 0.05))


def test_foreground_is_the_retina():
    pixels = retina(np.random.default_rng(0), (16, 192, 128))
    spacing = tuple(f / n for f, n in zip(FIELD_MM, pixels.shape))
    grid = to_grid(pixels, spacing, shape=(16, 128, 128), patch=(4, 8, 8), window_mm=WINDOW)
    rows = np.nonzero(grid.foreground)[1]
    assert 0.1 < grid.foreground.mean() < 0.5
    assert abs(rows.mean() - 7.5) < 2.5 and grid.foreground.any(axis=1).all()


def test_foreground_never_lies_outside_the_scan():
    volume = np.random.default_rng(0).integers(0, 255, (16, 64, 64)).astype(np.uint8)
    box = np.array([[4, 12], [16, 48], [0, 64]], np.int32)
    mask = foreground_tokens(volume, box, PATCH)
    assert mask.shape == (4, 4, 4)
    assert not mask[0].any() and not mask[:, 0].any() and not mask[:, 3].any()


def test_threshold_agrees_with_scikit_image():
    generator = np.random.default_rng(0)
    values = np.concatenate([generator.normal(40, 8, 500), generator.normal(160, 20, 300)])
    ours, theirs = otsu_threshold(values), skimage.filters.threshold_otsu(values)
    assert np.mean((values > ours) != (values > theirs)) < 0.01


def test_memory_stays_far_below_a_float_copy_of_the_scan():
    pixels = np.random.default_rng(0).integers(0, 255, (128, 400, 256), dtype=np.uint8)
    tracemalloc.start()
    grid_of(pixels, (0.047, 0.0048, 0.0234))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < pixels.size  # the float32 copy would be four times this


def test_a_scan_thinner_than_a_voxel_of_the_grid_is_still_found():
    weights, valid = axis_weights(6, 0.1, 0.5 * (0.6 - 6.0), 0.75, 8)
    assert valid == (3, 5)
    np.testing.assert_allclose(weights.toarray()[3], [1 / 3, 1 / 3, 1 / 3, 0, 0, 0], atol=1e-6)
