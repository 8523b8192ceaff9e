"""How far the average precision could be off because the images happened to be these.

The bootstrap (Efron 1979): images are drawn with replacement, as many as there are, and the AP of
such draws is as uncertain as the AP itself. What happened on an image is matched once, before.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from rtdetr.scoring.matches import ClassMatches, average_precisions

COVERED = 0.95
_TOGETHER = 25  # resamples at a time: bounds the memory
_SEED = 0  # the same images give the same interval


def interval(
    matches: Sequence[ClassMatches], images: int, resamples: int
) -> tuple[float, float] | None:
    """The AP that 2.5 % and 97.5 % of the resamples stay below; None without any object."""
    drawn = resampled_ap(matches, images, resamples)
    drawn = drawn[np.isfinite(drawn)]
    if not drawn.size:
        return None
    low, high = np.quantile(drawn, [(1 - COVERED) / 2, (1 + COVERED) / 2])
    return float(low), float(high)


def resampled_ap(matches: Sequence[ClassMatches], images: int, resamples: int) -> np.ndarray:
    """AP of each resample `[resamples]`; NaN where one has no object."""
    generator = np.random.default_rng(_SEED)
    weights = generator.multinomial(images, np.full(images, 1 / images), size=resamples)
    present = [one for one in matches if one.objects]
    if not present:
        return np.full(resamples, np.nan)
    means = []
    for start in range(0, resamples, _TOGETHER):
        part = weights[start : start + _TOGETHER]
        by_class = np.stack([average_precisions(one, part) for one in present])
        with warnings.catch_warnings():
            # A draw without any object: its mean is NaN, as it should be.
            warnings.simplefilter("ignore", RuntimeWarning)
            means.append(np.nanmean(by_class, axis=(0, 2)))
    return np.concatenate(means)
