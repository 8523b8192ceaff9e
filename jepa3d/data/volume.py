"""What a reader returns, a `Volume`, and the one way in which it refuses, a `SkipVolume`.

Axes everywhere: [frame, row, column] = [slow scan, depth, fast scan]. Spacing is in millimeters, in
the same order: (B-scan pitch, axial, lateral).
"""

from __future__ import annotations

import functools
import struct
import warnings
import zlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from pydicom.errors import BytesLengthException, InvalidDicomError

# A frame or a volume larger than any scanner writes is a damaged header, not data: the largest
# known protocol is 512 x 992 x 512 = 0.26 G voxels.
MAX_FRAME_PIXELS = 2**24
MAX_VOXELS = 2**30

# Everything that the decoders are known to raise on damaged input. Whatever is not in this list is
# a bug of ours and may surface.
DECODE_ERRORS = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    UnicodeError,
    ValueError,
    struct.error,
    zlib.error,
)


def quiet(function):
    """Silences the warnings of decoders; what matters of them becomes a reason or a note."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*args, **kwargs)

    return wrapper


class SkipReason(StrEnum):
    """Why a file gives no volume: a closed list, documented in `docs/jepa3d_data.md`."""

    # Exclusions: nothing is wrong with the file, it is not a raster volume of the retina.
    NOT_OCT = "not_oct"
    SCAN_PATTERN = "scan_pattern"
    TOO_FEW_FRAMES = "too_few_frames"
    DUPLICATE = "duplicate"
    OTHER_FILE = "other_file"
    # Faults: the file should have been a volume.
    MISSING_FILE = "missing_file"
    UNREADABLE_FILE = "unreadable_file"
    EMPTY_FILE = "empty_file"
    NOT_DICOM = "not_dicom"
    MISSING_PREAMBLE = "missing_preamble"
    TRUNCATED_HEADER = "truncated_header"
    BAD_HEADER = "bad_header"
    MISSING_PIXEL_DATA = "missing_pixel_data"
    ZERO_LENGTH_PIXEL_DATA = "zero_length_pixel_data"
    TRUNCATED_PIXEL_DATA = "truncated_pixel_data"
    FRAME_COUNT_MISMATCH = "frame_count_mismatch"
    UNKNOWN_TRANSFER_SYNTAX = "unknown_transfer_syntax"
    MISSING_DECODER = "missing_decoder"
    UNSUPPORTED_PIXELS = "unsupported_pixels"
    TOO_LARGE = "too_large"
    CORRUPT_FRAMES = "corrupt_frames"
    ZEISS_OBFUSCATED = "zeiss_obfuscated"
    CONSTANT_VOLUME = "constant_volume"
    SPACING_OUT_OF_RANGE = "spacing_out_of_range"
    MIXED_FRAME_SIZES = "mixed_frame_sizes"
    MIXED_VOLUMES = "mixed_volumes"
    SHARED_VOLUME = "shared_volume"
    UNSUPPORTED_FORMAT = "unsupported_format"
    DECODER_CRASHED = "decoder_crashed"

    @property
    def is_exclusion(self) -> bool:
        """True when the file is sound but of no use here; such files never lower the ok rate."""
        return self in (
            SkipReason.NOT_OCT,
            SkipReason.SCAN_PATTERN,
            SkipReason.TOO_FEW_FRAMES,
            SkipReason.DUPLICATE,
            SkipReason.OTHER_FILE,
        )


class SkipVolume(Exception):
    """A file that gives no volume: `reason` from the closed list, `detail` in words."""

    def __init__(self, reason: SkipReason, detail: str):
        super().__init__(reason, detail)
        self.reason = SkipReason(reason)
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.detail}"


@dataclass(frozen=True)
class Volume:
    """One OCT volume.

    Attributes:
      pixels: uint8 [frame, row, column].
      spacing_mm: (frame pitch, axial, lateral) in millimeters.
      metadata: plain values (JSON can hold them): `scanner`, `laterality` ("R", "L" or ""),
        `participant`, `protocol`, `spacing_source`, `intensity`, `frame_order` and notes on what
        was repaired.
    """

    pixels: np.ndarray
    spacing_mm: tuple[float, float, float]
    metadata: dict[str, Any] = field(default_factory=dict)


# Spacing gates in millimeters: pitch 5-400 um, axial 1-10 um, lateral 3-60 um.
SPACING_GATES_MM = ((0.005, 0.4), (0.001, 0.01), (0.003, 0.06))
_AXIS_NAMES = ("B-scan pitch", "axial", "lateral")


def check_spacing(spacing_mm: tuple[float, float, float], source: str) -> None:
    """Refuses a spacing outside `SPACING_GATES_MM`; a volume of 1 mm voxels is a lost tag."""
    for name, value, (low, high) in zip(_AXIS_NAMES, spacing_mm, SPACING_GATES_MM):
        if not low <= value <= high:
            raise SkipVolume(
                SkipReason.SPACING_OUT_OF_RANGE,
                f"{name} spacing {value:g} mm (from {source}) is outside {low:g} to {high:g} mm",
            )


def check_content(pixels: np.ndarray, minimum_frames: int) -> None:
    """Refuses a stack with fewer frames than `minimum_frames` or with no contrast at all."""
    if len(pixels) < minimum_frames:
        raise SkipVolume(
            SkipReason.TOO_FEW_FRAMES,
            f"{len(pixels)} frame(s), a volume needs at least {minimum_frames}",
        )
    if pixels.min() == pixels.max():
        raise SkipVolume(
            SkipReason.CONSTANT_VOLUME, f"every voxel has the same value {int(pixels.flat[0])}"
        )
