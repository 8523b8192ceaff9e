"""Gray values that come without a medical header: what a file name and the caller say about them.

Spacing comes from the caller or the file itself, else from the scanner that the path mentions; the
eye from a word of the name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jepa3d.data import intensity
from jepa3d.data.laterality import eye_of_name
from jepa3d.data.scanners import scanner_from_path, scanner_spacing
from jepa3d.data.volume import Volume, check_content, check_spacing

Spacing = tuple[float, float, float]


def plain_volume(
    stack: np.ndarray,
    path: Path,
    kind: str,
    minimum_frames: int,
    spacing_mm: Spacing | None,
    notes: dict[str, Any],
    own_spacing_mm: Spacing | None = None,
) -> Volume:
    """A volume of `stack`, [frame, row, column] of any numbers.

    Args:
      stack: the values.
      path: names the protocol and mentions the scanner and the eye, where `notes` do not.
      kind: the format, for the metadata.
      minimum_frames: fewer frames are refused.
      spacing_mm: (pitch, axial, lateral) that the caller gives; None where nobody knows.
      notes: what else the metadata should say; goes before what is told here.
      own_spacing_mm: of the file itself, goes before the caller's.

    Raises:
      SkipVolume: too few frames, no contrast, or a spacing that cannot be.
    """
    # Signed by its type only: the rules for unsigned words apply.
    if stack.dtype.kind == "i" and stack.size and stack.min() >= 0:
        stack = stack.astype(np.uint16 if stack.max() < 2**16 else np.float32)
    if stack.dtype == np.uint16 and stack.size and stack.max() < 256:
        stack = stack.astype(np.uint8)  # 8-bit values in a wider array
    pixels, notes["intensity"] = intensity.to_uint8(np.ascontiguousarray(stack))
    check_content(pixels, minimum_frames)
    scanner = notes.get("scanner") or scanner_from_path(path.as_posix())
    source = "file" if own_spacing_mm else "given" if spacing_mm else "scanner_default"
    spacing = own_spacing_mm or spacing_mm or scanner_spacing(scanner)
    check_spacing(spacing, source)
    metadata = {
        "format": kind,
        "scanner": scanner,
        "laterality": eye_of_name(path.stem) or eye_of_name(path.parent.name),
        "participant": "",
        "protocol": path.stem,
        "spacing_source": {"in_plane": source, "pitch": source},
    }
    return Volume(pixels, spacing, metadata | notes)
