"""Finds the retina: where it lies in depth, and which tokens of the grid it fills.

Both rest on Otsu's threshold (1979: the split with the largest between-class variance), applied to
smoothed intensity, in which the retina is a bright band between vitreous and choroid.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

# Rows near the top or bottom that are saturated are a scanner's "outside the scan" mark.
_SATURATED = 250
# Smoothing of the depth profile, as a share of the number of rows.
_PROFILE_SMOOTHING = 0.02


def otsu_threshold(values: np.ndarray, bins: int = 256) -> float:
    """Threshold that maximizes the between-class variance of a histogram of `values`.

    Returns:
      The upper edge of the last bin of the lower class; the value itself when all are equal.
    """
    counts, edges = np.histogram(values, bins=bins)
    weights = counts / max(counts.sum(), 1)
    centers = 0.5 * (edges[1:] + edges[:-1])
    below = np.cumsum(weights)
    moment = np.cumsum(weights * centers)
    spread = below * (1.0 - below)
    between = np.zeros_like(below)
    usable = spread > 1e-12
    between[usable] = (moment[-1] * below[usable] - moment[usable]) ** 2 / spread[usable]
    return float(edges[int(np.argmax(between)) + 1])


def retina_center(pixels: np.ndarray) -> float:
    """Row on which the retina is centered.

    Per block of neighboring B-scans: mean over frames and columns, smoothed, threshold, center of
    mass of what lies above; then the median over blocks, so that single bad B-scans do not count.

    Args:
      pixels: uint8 [frame, row, column].

    Returns:
      Row index as float; the middle row when nothing stands out.
    """
    frames, rows, _ = pixels.shape
    blocks = np.array_split(np.arange(frames), min(frames, 16))
    centers = []
    for block in blocks:
        # Every fourth column is enough for a mean over hundreds of them.
        profile = np.stack([_profile(pixels[frame][:, ::4]) for frame in block]).mean(0)
        profile = ndimage.gaussian_filter1d(profile, max(1.0, _PROFILE_SMOOTHING * rows))
        above = np.where(profile > otsu_threshold(profile), profile - profile.min(), 0.0)
        if above.sum() > 0:
            centers.append(float((above * np.arange(rows)).sum() / above.sum()))
    return float(np.median(centers)) if centers else 0.5 * (rows - 1)


def _profile(b_scan: np.ndarray) -> np.ndarray:
    """Mean intensity of each row of [row, column]; saturated pixels count as dark."""
    return np.where(b_scan >= _SATURATED, 0, b_scan).mean(axis=1)


def foreground_tokens(
    volume: np.ndarray, valid_box: np.ndarray, patch: tuple[int, int, int]
) -> np.ndarray:
    """Tokens that hold retina: the largest connected body of patches above Otsu's threshold.

    Args:
      volume: uint8 [D, H, W].
      valid_box: int32 [3, 2], the covered index range of each axis.
      patch: token size; divides the shape.

    Returns:
      bool [D / pd, H / ph, W / pw]; only tokens that the scan covers by a quarter or more along
      each axis can be True. Dark layers between bright ones count as retina.
    """
    grid = tuple(n // p for n, p in zip(volume.shape, patch))
    means, covered = _covered_means(volume, valid_box, grid, patch)
    if not covered.any():
        return covered
    bright = covered & (means > otsu_threshold(means[covered]))
    labels, count = ndimage.label(bright)  # pyright: ignore[reportGeneralTypeIssues]
    if count > 1:
        sizes = np.bincount(labels.reshape(-1))
        # Label 0 is everything that is not bright.
        sizes[0] = 0
        bright = labels == int(np.argmax(sizes))
    above = np.maximum.accumulate(bright, axis=1)
    below = np.maximum.accumulate(bright[:, ::-1], axis=1)[:, ::-1]
    return above & below


def _covered_means(
    volume: np.ndarray, valid_box: np.ndarray, grid: tuple, patch: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the covered voxels of each token, and which tokens are covered enough."""
    inside = np.zeros_like(volume)
    box = tuple(slice(low, high) for low, high in valid_box)
    inside[box] = volume[box]
    split = inside.reshape(grid[0], patch[0], grid[1], patch[1], grid[2], patch[2])
    sums = split.sum(axis=(1, 3, 5), dtype=np.int64)
    shares = [
        np.clip(np.minimum(high, (i + 1) * size) - np.maximum(low, i * size), 0, None) / size
        for (low, high), i, size in zip(valid_box, map(np.arange, grid), patch)
    ]
    share = shares[0][:, None, None] * shares[1][None, :, None] * shares[2][None, None, :]
    enough = [part >= 0.25 for part in shares]
    covered = enough[0][:, None, None] & enough[1][None, :, None] & enough[2][None, None, :]
    return sums / np.maximum(share * np.prod(patch), 1e-9), covered
