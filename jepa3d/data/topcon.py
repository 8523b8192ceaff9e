"""Reader of Topcon's `.fda` and `.fds` files (3D OCT-1000 and -2000, Maestro, Triton).

Layout (little endian), as described by the uocte project: "FOCT", three letters, two uint32; then
chunks of {uint8 length of the name, name, uint32 size, content}, ended by a name of length 0. The
B-scans are JPEG 2000 images in @IMG_JPEG (.fda) or uint16 words in @IMG_SCAN_03 (.fds) and
@IMG_MOT_COMP_03 (.fda without @IMG_JPEG); rows are depth.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from jepa3d.data.plain import Spacing, plain_volume
from jepa3d.data.scanners import UNKNOWN_SCANNER, scanner_name
from jepa3d.data.volume import (
    DECODE_ERRORS,
    MAX_FRAME_PIXELS,
    MAX_VOXELS,
    SkipReason,
    SkipVolume,
    Volume,
)

SIGNATURE = b"FOCT"
_HEADER_BYTES = 15
_JPEG_HEADER = struct.Struct("<BIIIIII")  # pattern, -, -, columns, rows, frames, -
_WORDS_HEADER = struct.Struct("<BIIIIBI")  # pattern, columns, rows, bits, frames, format, bytes
# x mm, y mm and z um of one voxel row, behind three or five integers.
_SCAN_PARAMETERS = {b"@PARAM_SCAN_04": struct.Struct("<12xddd")}
_SCAN_PARAMETERS[b"@PARAM_SCAN_02"] = struct.Struct("<21xddd")
_PATTERNS = {3: "radial", 4: "cross"}
_EYES = {0: "R", 1: "L"}


@dataclass(frozen=True)
class _Chunks:
    """Where the chunks of an open file lie: name -> (offset, size); the last of one name counts."""

    file: BinaryIO
    places: dict[bytes, tuple[int, int]]

    def content(self, *names: bytes) -> bytes:
        """Content of the first chunk of these names that there is, b"" without one."""
        for name in names:
            if name in self.places:
                offset, size = self.places[name]
                self.file.seek(offset)
                return self.file.read(size)
        return b""


def read_topcon(path: Path, minimum_frames: int, spacing_mm: Spacing | None) -> Volume:
    """Reads a raster volume.

    Raises:
      SkipVolume: `scan_pattern` for radial and cross scans; otherwise why it is unreadable.
    """
    with open(path, "rb") as file:
        chunks = _chunks(file)
        if b"@IMG_JPEG" in chunks.places:
            stack = _jpeg_frames(chunks.content(b"@IMG_JPEG"))
        else:
            stack = _word_frames(chunks.content(b"@IMG_SCAN_03", b"@IMG_MOT_COMP_03"))
        own = _spacing(chunks, stack.shape)
        model = _text(chunks.content(b"@HW_INFO_03", b"@HW_INFO_02", b"@HW_INFO_01")[:16])
        capture = chunks.content(b"@CAPTURE_INFO_02", b"@CAPTURE_INFO")
        notes = {"frame_order": "stored", "participant": _participant(chunks)}
    scanner = scanner_name("Topcon", model)
    if scanner != UNKNOWN_SCANNER:
        notes["scanner"] = scanner
    if capture and capture[0] in _EYES:
        notes["laterality"] = _EYES[capture[0]]
    return plain_volume(stack, path, "topcon", minimum_frames, spacing_mm, notes, own)


def participant_of_topcon(path: Path) -> str:
    """The patient number that the file carries, "" without one."""
    try:
        with open(path, "rb") as file:
            return _participant(_chunks(file))
    except (SkipVolume, *DECODE_ERRORS):
        return ""  # Reading it will say what is wrong.


def _chunks(file: BinaryIO) -> _Chunks:
    start = file.read(_HEADER_BYTES)
    if not start:
        raise SkipVolume(SkipReason.EMPTY_FILE, "the file has 0 bytes")
    if not start.startswith(SIGNATURE):
        raise SkipVolume(SkipReason.UNSUPPORTED_FORMAT, "not a Topcon file (no FOCT mark)")
    end = file.seek(0, io.SEEK_END)
    places, place = {}, _HEADER_BYTES
    while place < end:
        file.seek(place)
        length = file.read(1)[0]
        name, size = file.read(length), file.read(4)
        if length == 0:
            break
        place += 5 + length
        bytes_of_chunk = int.from_bytes(size, "little")
        if len(size) < 4 or place + bytes_of_chunk > end:
            raise SkipVolume(
                SkipReason.TRUNCATED_PIXEL_DATA, f"the file ends inside its part {_text(name)}"
            )
        places[name] = (place, bytes_of_chunk)
        place += bytes_of_chunk
    return _Chunks(file, places)


def _jpeg_frames(content: bytes) -> np.ndarray:
    pattern, _, _, columns, rows, frames, _ = _JPEG_HEADER.unpack_from(content)
    _check(pattern, frames, rows, columns)
    stack, place = np.empty((frames, rows, columns), np.uint16), _JPEG_HEADER.size
    for index in range(frames):
        size = int.from_bytes(content[place : place + 4], "little")
        place += 4
        try:
            with Image.open(io.BytesIO(content[place : place + size])) as image:
                stack[index] = np.asarray(image)
        except (*DECODE_ERRORS, SyntaxError) as error:
            raise SkipVolume(
                SkipReason.CORRUPT_FRAMES, f"B-scan {index} cannot be decoded ({error})"
            ) from error
        place += size
    return stack


def _word_frames(content: bytes) -> np.ndarray:
    if not content:
        raise SkipVolume(SkipReason.MISSING_PIXEL_DATA, "no @IMG_JPEG, @IMG_SCAN_03 in the file")
    pattern, columns, rows, bits, frames, _, _ = _WORDS_HEADER.unpack_from(content)
    _check(pattern, frames, rows, columns)
    if bits != 16:
        raise SkipVolume(SkipReason.UNSUPPORTED_PIXELS, f"words of {bits} bits instead of 16")
    count = frames * rows * columns
    if len(content) < _WORDS_HEADER.size + 2 * count:
        raise SkipVolume(
            SkipReason.TRUNCATED_PIXEL_DATA,
            f"{len(content) - _WORDS_HEADER.size} of {2 * count} bytes are in the file",
        )
    words = np.frombuffer(content, "<u2", count, _WORDS_HEADER.size)
    return words.reshape(frames, rows, columns)


def _check(pattern: int, frames: int, rows: int, columns: int) -> None:
    if pattern in _PATTERNS:
        raise SkipVolume(SkipReason.SCAN_PATTERN, f"{_PATTERNS[pattern]} scan")
    if min(frames, rows, columns) <= 0:
        raise SkipVolume(SkipReason.BAD_HEADER, f"size {frames} x {rows} x {columns}")
    if rows * columns > MAX_FRAME_PIXELS or frames * rows * columns > MAX_VOXELS:
        raise SkipVolume(SkipReason.TOO_LARGE, f"the header declares {frames} x {rows} x {columns}")


def _spacing(chunks: _Chunks, shape: tuple[int, ...]) -> Spacing | None:
    for name, layout in _SCAN_PARAMETERS.items():
        content = chunks.content(name)
        if len(content) >= layout.size:
            width_mm, height_mm, row_um = layout.unpack_from(content)
            return height_mm / shape[0], row_um / 1000.0, width_mm / shape[2]
    return None


def _participant(chunks: _Chunks) -> str:
    return _text(chunks.content(b"@PATIENT_INFO_02", b"@PATIENT_INFO")[:32])


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("latin-1").strip()
