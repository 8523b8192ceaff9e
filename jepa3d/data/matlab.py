"""Reader of MATLAB files (`.mat`, before version 7.3): one array of numbers [row, column, frame].

The Duke data sets are known by their variables and bring their spacing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io

from jepa3d.data.plain import Spacing, plain_volume
from jepa3d.data.volume import DECODE_ERRORS, MAX_VOXELS, SkipReason, SkipVolume, Volume

_NAMES = ("images", "volume", "oct", "bscans", "data", "img")
# A variable that only this data set has, and its (pitch, axial, lateral) in mm.
_DATA_SETS: tuple[tuple[str, Spacing], ...] = (
    ("layerMaps", (0.067, 0.0045, 0.0067)),  # Farsiu et al. 2014, AMD and control
    ("manualFluid1", (0.123, 0.00387, 0.01133)),  # Chiu et al. 2015, diabetic macular edema
)


def read_matlab(path: Path, minimum_frames: int, spacing_mm: Spacing | None) -> Volume:
    """Reads the array named as a volume is, or the only array of three axes.

    Raises:
      SkipVolume: no such array, several, or a file of another version.
    """
    if path.stat().st_size == 0:
        raise SkipVolume(SkipReason.EMPTY_FILE, "the file has 0 bytes")
    try:
        listed = {name: shape for name, shape, _ in scipy.io.whosmat(path)}
        name = _volume_name(listed)
        loaded = scipy.io.loadmat(path, variable_names=[name])[name]
    except NotImplementedError as error:
        raise SkipVolume(
            SkipReason.UNSUPPORTED_FORMAT,
            "a MATLAB 7.3 file (HDF5); save it in MATLAB by save(..., '-v7')",
        ) from error
    except DECODE_ERRORS as error:
        raise SkipVolume(SkipReason.CORRUPT_FRAMES, f"cannot be read ({error})") from error
    array = np.asarray(loaded)
    if array.ndim != 3 or array.dtype.kind not in "uif":
        raise SkipVolume(
            SkipReason.UNSUPPORTED_PIXELS, f"{name} is {array.shape} of type {array.dtype}"
        )
    own = next((spacing for mark, spacing in _DATA_SETS if mark in listed), None)
    stack = np.moveaxis(array, -1, 0)
    notes = {"frame_order": "stored", "variable": name}
    return plain_volume(stack, path, "matlab", minimum_frames, spacing_mm, notes, own)


def _volume_name(listed: dict[str, tuple[int, ...]]) -> str:
    stacks = [name for name, shape in listed.items() if len(shape) == 3]
    chosen = [name for name in _NAMES if name in stacks][:1] or stacks
    if len(chosen) != 1:
        raise SkipVolume(
            # Tables of layers and marks lie beside volumes by right.
            SkipReason.NOT_OCT,
            f"none of the variables {sorted(listed)[:8]} is the one volume; name it images, "
            "[row, column, frame]",
        )
    if int(np.prod([int(n) for n in listed[chosen[0]]], dtype=object)) > MAX_VOXELS:
        raise SkipVolume(SkipReason.TOO_LARGE, f"{chosen[0]} is {listed[chosen[0]]}")
    return chosen[0]
