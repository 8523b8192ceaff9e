"""Arrays without any header of their own: `.npy` and `.npz`, axes [frame, row, column].

An `.npz` holds `volume` (or another of `_VOLUME_KEYS`) and perhaps `spacing_mm`. Pickles are
refused.
"""

from __future__ import annotations

import tokenize
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jepa3d.data.plain import Spacing, plain_volume
from jepa3d.data.volume import DECODE_ERRORS, MAX_VOXELS, SkipReason, SkipVolume, Volume

_VOLUME_KEYS = ("volume", "oct_bscans", "pixels", "data", "arr_0")


def read_array(path: Path, minimum_frames: int, spacing_mm: Spacing | None) -> Volume:
    """Reads a `.npy` or `.npz` file; pickled arrays are refused.

    Raises:
      SkipVolume: unreadable, of the wrong shape or type, or cut short.
    """
    if path.stat().st_size == 0:
        raise SkipVolume(SkipReason.EMPTY_FILE, "the file has 0 bytes")
    own_spacing = None
    try:
        if path.suffix.lower() == ".npz":
            array, own_spacing = _load_npz(path)
        else:
            with open(path, "rb") as file:
                array = _load_npy(file, path.stat().st_size)
    except (*DECODE_ERRORS, SyntaxError, tokenize.TokenError, zipfile.BadZipFile) as error:
        raise SkipVolume(
            SkipReason.CORRUPT_FRAMES, f"the array cannot be read ({error})"
        ) from error
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3 or array.dtype.kind not in "uif" or 0 in array.shape:
        raise SkipVolume(
            SkipReason.UNSUPPORTED_PIXELS,
            f"array of shape {array.shape} and type {array.dtype}; "
            "[frame, row, column] numbers are needed",
        )
    notes = {"frame_order": "stored"}
    return plain_volume(array, path, "array", minimum_frames, spacing_mm, notes, own_spacing)


def _load_npy(file: BinaryIO, available: int) -> np.ndarray:
    """Loads an array after its declared size was compared with the bytes that exist."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    # Python's integers, since a damaged shape can overflow int64.
    count = int(np.prod([int(n) for n in shape], dtype=object)) if shape else 1
    if dtype.hasobject:
        raise SkipVolume(SkipReason.UNSUPPORTED_PIXELS, "a pickled object array is never opened")
    if count > MAX_VOXELS:
        raise SkipVolume(SkipReason.TOO_LARGE, f"the header declares shape {shape}")
    if count * dtype.itemsize > available:
        raise SkipVolume(
            SkipReason.TRUNCATED_PIXEL_DATA,
            f"{available} of {count * dtype.itemsize} bytes are in the file",
        )
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _load_npz(path: Path) -> tuple[np.ndarray, Spacing | None]:
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        key = next((k for k in _VOLUME_KEYS if k in sizes), "")
        if not key:
            raise SkipVolume(
                SkipReason.UNSUPPORTED_FORMAT,
                f"no array named {', '.join(_VOLUME_KEYS)} among {sorted(sizes)[:8]}",
            )
        with archive.open(sizes[key]) as member:
            array = _load_npy(member, sizes[key].file_size)  # type: ignore[arg-type]
        if "spacing_mm" not in sizes:
            return array, None
        with archive.open(sizes["spacing_mm"]) as member:
            spacing = _load_npy(member, sizes["spacing_mm"].file_size)  # type: ignore[arg-type]
    values = [float(v) for v in np.ravel(spacing)]
    return array, (values[0], values[1], values[2]) if len(values) == 3 else None
