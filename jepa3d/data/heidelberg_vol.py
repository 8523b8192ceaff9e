"""Reader of Heidelberg Spectralis raw exports (`.vol`, little endian).

Layout: a 2048-byte header; the fundus image, uint8; then for each B-scan a header of BScanHdrSize
bytes and SizeX x SizeZ float32 reflectivities in 0..1, rows are depth. The largest float marks
pixels outside the scan. Display value = fourth root of the reflectivity.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from jepa3d.data.plain import Spacing
from jepa3d.data.volume import (
    MAX_FRAME_PIXELS,
    MAX_VOXELS,
    SkipReason,
    SkipVolume,
    Volume,
    check_content,
    check_spacing,
)

_HEADER_BYTES = 2048
# version, SizeX, NumBScans, SizeZ, ScaleX, Distance, ScaleZ, SizeXSlo, SizeYSlo, ScaleXSlo,
# ScaleYSlo, FieldSizeSlo, ScanFocus, ScanPosition, ExamTime, ScanPattern, BScanHdrSize, ID,
# ReferenceID, PID, PatientID
_HEADER = struct.Struct("<12siiidddiiddid4sqii16s16si24s")
_PATTERNS = {1: "line", 2: "circle", 3: "volume", 4: "fast volume", 5: "radial"}
_RASTER_PATTERNS = (3, 4)
# The mark is 3.4e38, the largest float32; reflectivities are at most 1.
_INVALID_ABOVE = 1e30
SIGNATURE = b"HSF-"


def read_vol(path: Path, minimum_frames: int, spacing_mm: Spacing | None = None) -> Volume:
    """Reads a raster volume; its header has the spacing, so that a given one is not used.

    Raises:
      SkipVolume: `scan_pattern` for line, circle and radial scans; otherwise why it is unreadable.
    """
    del spacing_mm
    with open(path, "rb") as file:
        head = file.read(_HEADER_BYTES)
    if not head:
        raise SkipVolume(SkipReason.EMPTY_FILE, "the file has 0 bytes")
    if not head.startswith(SIGNATURE):
        raise SkipVolume(SkipReason.UNSUPPORTED_FORMAT, "not a Heidelberg raw export (no HSF mark)")
    if len(head) < _HEADER_BYTES:
        raise SkipVolume(SkipReason.TRUNCATED_HEADER, "the file ends inside the header")
    fields = _HEADER.unpack_from(head)
    columns, frames, rows, lateral, pitch, axial = fields[1:7]
    slo_columns, slo_rows, position, pattern, frame_header = fields[7], fields[8], *_tail(fields)
    if pattern not in _RASTER_PATTERNS:
        raise SkipVolume(
            SkipReason.SCAN_PATTERN, f"{_PATTERNS.get(pattern, f'pattern {pattern}')} scan"
        )
    if min(columns, frames, rows, slo_columns, slo_rows, frame_header) <= 0:
        raise SkipVolume(SkipReason.BAD_HEADER, f"size {frames} x {rows} x {columns}")
    if rows * columns > MAX_FRAME_PIXELS or frames * rows * columns > MAX_VOXELS:
        raise SkipVolume(SkipReason.TOO_LARGE, f"size {frames} x {rows} x {columns}")
    start = _HEADER_BYTES + slo_columns * slo_rows
    needed = start + frames * (frame_header + 4 * rows * columns)
    if path.stat().st_size < needed:
        raise SkipVolume(
            SkipReason.TRUNCATED_PIXEL_DATA, f"{path.stat().st_size} of {needed} bytes are there"
        )
    spacing = (pitch, axial, lateral)
    pixels = read_frames(path, start, frame_header, (frames, rows, columns))
    check_content(pixels, minimum_frames)
    check_spacing(spacing, "the .vol header")
    side = {b"OD": "R", b"OS": "L"}.get(position[:2], "")
    metadata: dict[str, Any] = {
        "format": "heidelberg_vol",
        "scanner": "heidelberg_spectralis",
        "laterality": side,
        "participant": _participant(fields),
        "protocol": f"spectralis {_PATTERNS[pattern]}",
        "intensity": "fourth_root",
        "frame_order": "stored",
        "spacing_source": {"in_plane": "vol_header", "pitch": "vol_header"},
    }
    return Volume(pixels, spacing, metadata)


def participant_of_vol(path: Path) -> str:
    """The patient number in the header, "" without one."""
    try:
        with open(path, "rb") as file:
            return _participant(_HEADER.unpack(file.read(_HEADER.size)))
    except (OSError, struct.error):
        return ""  # Reading it will say what is wrong.


def _participant(fields: tuple) -> str:
    return fields[-1].split(b"\0")[0].decode("latin-1").strip()


def _tail(fields: tuple) -> tuple[bytes, int, int]:
    """(ScanPosition, ScanPattern, BScanHdrSize)."""
    return fields[13], fields[15], fields[16]


def read_frames(
    path: Path, start: int, frame_header: int, shape: tuple[int, int, int]
) -> np.ndarray:
    """uint8 [frame, row, column] display values; invalid pixels are 0."""
    frames, rows, columns = shape
    pixels = np.zeros(shape, np.uint8)
    with open(path, "rb") as file:
        for index in range(frames):
            file.seek(start + index * (frame_header + 4 * rows * columns) + frame_header)
            raw = np.frombuffer(file.read(4 * rows * columns), "<f4").reshape(rows, columns)
            valid = np.isfinite(raw) & (raw < _INVALID_ABOVE)
            shown = np.clip(np.where(valid, raw, 0.0), 0.0, 1.0) ** 0.25
            pixels[index] = np.rint(255.0 * shown)
    return pixels
