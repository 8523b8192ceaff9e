"""Stored numbers to uint8 display values.

Rules, in this order; the name of the rule is kept in the volume's metadata under `intensity`:
  stored_8_bit     8-bit words are kept as they are;
  widened_8_bit    16-bit words that carry only 8 bits (all multiples of 257, or of 256) are divided
                   back, so that the 8-bit original returns exactly;
  percentile       everything else: the 0.1 and 99.9 percentiles go to 0 and 255, linear between.
A rescale slope and intercept common to all frames is an affine map: it does not change the uint8
result unless the slope is negative, which inverts, as MONOCHROME1 does.
"""

from __future__ import annotations

import numpy as np

LOW_QUANTILE, HIGH_QUANTILE = 0.001, 0.999
# Quantiles of floats are taken on at most this many voxels, evenly strided.
_QUANTILE_SAMPLES = 4_000_000


def to_uint8(values: np.ndarray, padded: np.ndarray | None = None) -> tuple[np.ndarray, str]:
    """Maps a stack to uint8 by the rules of this module.

    Args:
      values: [frame, row, column] of any integer or floating type; non-finite values count as dark.
      padded: bool of the same shape, True where there is no image; such pixels decide nothing, and
        what they become means nothing.

    Returns:
      uint8 array of the same shape, and the name of the rule.
    """
    if padded is not None and not padded.all():
        # A value that the image has cannot spoil the rules for 8-bit words.
        values = np.where(padded, values[~padded].min(), values)
    if values.dtype == np.uint8:
        return values, "stored_8_bit"
    if values.dtype == np.uint16:
        for factor in (257, 256):
            if _all_multiples(values, factor):
                return (values // factor).astype(np.uint8), "widened_8_bit"
    low, high = _robust_range(values, padded)
    return _scale_by_frame(values, low, high), "percentile"


def _all_multiples(values: np.ndarray, factor: int) -> bool:
    return all(not np.any(frame % factor) for frame in values)


def _robust_range(values: np.ndarray, padded: np.ndarray | None) -> tuple[float, float]:
    stride = max(1, values.size // _QUANTILE_SAMPLES)
    sample = values.reshape(-1)[::stride].astype(np.float64)
    if padded is not None:
        sample = sample[~padded.reshape(-1)[::stride]]
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0, 0.0
    low, high = np.quantile(sample, (LOW_QUANTILE, HIGH_QUANTILE))
    if high <= low:  # nearly constant: use the whole range, so that what contrast there is stays
        low, high = sample.min(), sample.max()
    return float(low), float(high)


def _scale_by_frame(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """One frame at a time, so that no second full-size float array exists."""
    result = np.zeros(values.shape, np.uint8)
    if high <= low:
        return result
    for index, frame in enumerate(values):
        finite = np.where(np.isfinite(frame), frame, low).astype(np.float64)
        scaled = (np.clip(finite, low, high) - low) * (255.0 / (high - low))
        result[index] = np.rint(scaled).astype(np.uint8)
    return result


def invert(pixels: np.ndarray) -> np.ndarray:
    """255 - x, for MONOCHROME1 or a negative rescale slope."""
    return np.subtract(255, pixels, dtype=np.uint8)
