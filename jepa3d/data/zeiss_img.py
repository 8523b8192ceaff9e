"""Reader of Zeiss Cirrus raw exports (`..._cube_raw.img`, `..._cube_z.img`).

Such a file is nothing but bytes, uint8 [B-scan, depth, A-scan], seen upside down and from behind;
its size is in its name: `P1234_Macular Cube 512x128_3-4-2015_10-11-12_OD_sn5678_cube_z.img` is 128
B-scans of 512 A-scans. A cube is 6 x 6 mm wide and 2 mm deep.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from jepa3d.data.plain import Spacing, plain_volume
from jepa3d.data.volume import MAX_VOXELS, SkipReason, SkipVolume, Volume

_FIELD_MM, _DEPTH_MM = 6.0, 2.0


def read_zeiss_img(path: Path, minimum_frames: int, spacing_mm: Spacing | None) -> Volume:
    """Reads a cube.

    Raises:
      SkipVolume: a name that does not say the size, or a file of another size.
    """
    named = re.search(r"(?:^|[ _])(\d{2,4})x(\d{2,4})(?=[ _.])", path.name)
    if not named:
        raise SkipVolume(
            SkipReason.UNSUPPORTED_FORMAT,
            "a .img without the size of a Zeiss cube in its name, such as _512x128_; keep the name "
            "that the scanner's export gave it",
        )
    columns, frames = int(named.group(1)), int(named.group(2))
    size = path.stat().st_size
    if size == 0:
        raise SkipVolume(SkipReason.EMPTY_FILE, "the file has 0 bytes")
    rows = size // (columns * frames)
    # A-scans of Cirrus have 1024 samples; another whole number is taken as well.
    if rows * columns * frames != size or rows < 64:
        raise SkipVolume(
            SkipReason.TRUNCATED_PIXEL_DATA,
            f"{size} bytes are no whole A-scans of {frames} B-scans of {columns} A-scans",
        )
    if size > MAX_VOXELS:
        raise SkipVolume(SkipReason.TOO_LARGE, f"{frames} x {rows} x {columns}")
    stored = np.fromfile(path, np.uint8).reshape(frames, rows, columns)
    stack = stored[:, ::-1, ::-1]
    own = (_FIELD_MM / frames, _DEPTH_MM / rows, _FIELD_MM / columns)
    notes = {"frame_order": "stored", "scanner": "zeiss_cirrus"}
    return plain_volume(stack, path, "zeiss_img", minimum_frames, spacing_mm, notes, own)


def participant_of_zeiss_img(path: Path) -> str:
    """The patient number at the beginning of the name, "" without one."""
    found = re.match(r"(P\d+)_", path.name)
    return found.group(1) if found else ""
