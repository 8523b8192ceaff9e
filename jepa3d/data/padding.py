"""Pixels that a DICOM file declares as padding: they show nothing and count in no gray level.

PixelPaddingValue (0028,0120) is a stored word, before any rescale; with PixelPaddingRangeLimit
(0028,0121) every word between the two, both included, is padding (PS3.3 C.7.5.1.1.2).
"""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset


def padded_pixels(dataset: Dataset, stored: np.ndarray) -> np.ndarray | None:
    """Bool array of the shape of `stored`, True at padding; None where there is none.

    Args:
      dataset: header of the file.
      stored: uint8, uint16 or int16 words as stored.
    """
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if value is None:
        return None
    ends = [_as_word(number, stored.dtype) for number in (value, value if limit is None else limit)]
    padded = (stored >= min(ends)) & (stored <= max(ends))
    return padded if padded.any() else None


def _as_word(number: int, dtype: np.dtype) -> int:
    """The tag in the range of the words: -1 may be written as 65535, and 65535 as -1."""
    bits = 8 * dtype.itemsize
    word = int(number) % (1 << bits)
    return word - (1 << bits) if dtype.kind == "i" and word >= 1 << (bits - 1) else word
