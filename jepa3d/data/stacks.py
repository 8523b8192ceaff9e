"""Volumes that are not in a medical format: folders of B-scan images, `.npy` and `.npz` arrays.

Array axes are [frame, row, column]. Such files carry no spacing (an `.npz` may hold `spacing_mm`),
so it comes from the caller or from the scanner that the path mentions.
"""

from __future__ import annotations

import re
import tokenize
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from jepa3d.data import intensity
from jepa3d.data.scanners import scanner_from_path, scanner_spacing
from jepa3d.data.volume import (
    DECODE_ERRORS,
    MAX_FRAME_PIXELS,
    MAX_VOXELS,
    SkipReason,
    SkipVolume,
    Volume,
    check_content,
    check_spacing,
)

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
_VOLUME_KEYS = ("volume", "oct_bscans", "pixels", "data", "arr_0")

Spacing = tuple[float, float, float]


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key in which 2.bmp comes before 10.bmp."""
    parts = re.findall(r"\d+|\D+", name.lower())
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts]


def image_files(folder: Path) -> list[Path]:
    """Images of a folder in numeric order; those without a number are left out when others have one
    (`average.tif` beside `1.tif`, `2.tif` is no B-scan)."""
    found = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    numbered = [p for p in found if re.search(r"\d", p.stem)]
    return sorted(numbered or found, key=lambda p: natural_key(p.name))


def read_image_folder(folder: Path, minimum_frames: int, spacing_mm: Spacing | None) -> Volume:
    """Reads a folder of equal-sized gray images as one volume.

    Raises:
      SkipVolume: too few images, images of several sizes, or one that cannot be decoded.
    """
    files = image_files(folder)
    if len(files) < max(minimum_frames, 1):
        raise SkipVolume(
            SkipReason.TOO_FEW_FRAMES,
            f"{len(files)} numbered image(s), a volume needs at least {minimum_frames}",
        )
    first = _read_image(files[0])
    if len(files) * first.size > MAX_VOXELS:
        raise SkipVolume(SkipReason.TOO_LARGE, f"{len(files)} images of {first.shape}")
    stack = np.empty((len(files), *first.shape), first.dtype)
    for index, path in enumerate(files):
        frame = _read_image(path)
        if frame.shape != first.shape or frame.dtype != first.dtype:
            raise SkipVolume(
                SkipReason.MIXED_FRAME_SIZES,
                f"{path.name} is {frame.shape} {frame.dtype}, "
                f"{files[0].name} is {first.shape} {first.dtype}",
            )
        stack[index] = frame
    left_out = sum(1 for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES) - len(files)
    notes: dict[str, Any] = {"files": len(files), "frame_order": "file_number"}
    if left_out:
        notes["images_left_out"] = left_out
    return _finish(stack, folder, "image_folder", minimum_frames, spacing_mm, notes)


def _read_image(path: Path) -> np.ndarray:
    """Gray image as uint8 or uint16 [row, column]."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_FRAME_PIXELS:
                raise SkipVolume(SkipReason.TOO_LARGE, f"{path.name} is {image.size}")
            # 16-bit gray images open as "I" or as "I;16", by the version of Pillow.
            if image.mode.startswith("I;16") or image.mode == "I":
                return np.asarray(image).astype(np.uint16)
            return np.asarray(image.convert("L"))
    except (*DECODE_ERRORS, Image.DecompressionBombError, SyntaxError) as error:
        raise SkipVolume(
            SkipReason.CORRUPT_FRAMES, f"{path.name} cannot be decoded ({error})"
        ) from error


def read_array(path: Path, minimum_frames: int, spacing_mm: Spacing | None) -> Volume:
    """Reads a `.npy` or `.npz` file; pickled arrays are refused.

    Raises:
      SkipVolume: unreadable, of the wrong shape or type, or cut short.
    """
    if path.stat().st_size == 0:
        raise SkipVolume(SkipReason.EMPTY_FILE, "the file has 0 bytes")
    try:
        if path.suffix.lower() == ".npz":
            array, own_spacing = _load_npz(path)
            spacing_mm = own_spacing or spacing_mm
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
    return _finish(array, path, "array", minimum_frames, spacing_mm, {"frame_order": "stored"})


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


def _finish(
    stack: np.ndarray,
    path: Path,
    kind: str,
    minimum_frames: int,
    spacing_mm: Spacing | None,
    notes: dict[str, Any],
) -> Volume:
    # Signed by its type only: the rules for unsigned words apply.
    if stack.dtype.kind == "i" and stack.size and stack.min() >= 0:
        stack = stack.astype(np.uint16 if stack.max() < 2**16 else np.float32)
    if stack.dtype == np.uint16 and stack.size and stack.max() < 256:
        stack = stack.astype(np.uint8)  # 8-bit values in a wider array
    pixels, notes["intensity"] = intensity.to_uint8(np.ascontiguousarray(stack))
    check_content(pixels, minimum_frames)
    scanner = scanner_from_path(path.as_posix())
    source = "given" if spacing_mm else "scanner_default"
    spacing = spacing_mm or scanner_spacing(scanner)
    check_spacing(spacing, source)
    lowered = f"_{path.stem.lower()}_"
    metadata = {
        "format": kind,
        "scanner": scanner,
        "laterality": "L" if "_l_" in lowered else "R" if "_r_" in lowered else "",
        "participant": "",
        "protocol": path.stem,
        "spacing_source": {"in_plane": source, "pitch": source},
    }
    return Volume(pixels, spacing, metadata | notes)
