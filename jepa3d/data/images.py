"""B-scans as images: a folder of them, some files of a folder, or the pages of one TIFF file.

A TIFF file of several pages is a volume of its own, never a B-scan of the volume beside it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jepa3d.data.image_groups import ImageGroups, describe, group_images
from jepa3d.data.laterality import eye_of_name
from jepa3d.data.plain import Spacing, plain_volume
from jepa3d.data.volume import (
    DECODE_ERRORS,
    MAX_FRAME_PIXELS,
    MAX_VOXELS,
    SkipReason,
    SkipVolume,
    Volume,
    quiet,
)

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
TIFF_SUFFIXES = (".tif", ".tiff")
_IMAGE_ERRORS = (*DECODE_ERRORS, Image.DecompressionBombError, SyntaxError)
# Where ImageJ says how many images follow in a file too large for TIFF's own chain of pages.
_DESCRIPTION_TAG = 270


def is_image(path: Path) -> bool:
    """Whether the name is that of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


@quiet
def page_count(path: Path) -> int:
    """Number of pages of a TIFF file; 1 for any other image, and for one that cannot be opened."""
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return 1
    try:
        with Image.open(path) as image:
            return max(_pages(image), _imagej_pages(image))
    except _IMAGE_ERRORS:
        return 1  # Reading it will say what is wrong.


def _pages(image: Image.Image) -> int:
    return int(getattr(image, "n_frames", 1))


def _imagej_pages(image: Image.Image) -> int:
    tags: Any = getattr(image, "tag_v2", {})
    text = str(tags.get(_DESCRIPTION_TAG, ""))
    found = re.search(r"^images=(\d+)", text, re.MULTILINE) if text.startswith("ImageJ=") else None
    return int(found.group(1)) if found else 1


def groups_of_folder(folder: Path) -> ImageGroups:
    """The images of a folder by volume, without TIFF files of several pages."""
    names = [p.name for p in folder.iterdir() if is_image(p) and p.is_file()]
    return group_images([name for name in names if page_count(folder / name) == 1])


def image_files(folder: Path) -> list[Path]:
    """The B-scans of a folder that holds one volume, in order."""
    return [folder / name for group in groups_of_folder(folder).groups for name in group]


def read_image_folder(folder: Path, minimum_frames: int, spacing_mm: Spacing | None) -> Volume:
    """Reads a folder of equal-sized gray images as one volume.

    Raises:
      SkipVolume: images of several volumes, too few, of several sizes, or one that cannot be
        decoded.
    """
    stacks = sorted(p.name for p in folder.iterdir() if is_image(p) and page_count(p) > 1)
    if stacks:
        raise SkipVolume(
            SkipReason.MIXED_VOLUMES,
            f"{describe(stacks)} hold several pages, each a volume of its own; give the file",
        )
    found = groups_of_folder(folder)
    if len(found.groups) > 1:
        raise SkipVolume(SkipReason.MIXED_VOLUMES, mixed_names(found))
    files = [folder / name for group in found.groups for name in group]
    return read_images(files, folder, minimum_frames, spacing_mm, found.left_out)


def mixed_names(found: ImageGroups) -> str:
    """Why the images of a folder are not one volume, with their names."""
    firsts = [group[0] for group in found.groups]
    return (
        f"the images are of {len(firsts)} volumes by their names ({describe(firsts)}): those of "
        "one volume differ in one running number; give each volume a folder of its own"
    )


def read_images(
    files: list[Path],
    name: Path,
    minimum_frames: int,
    spacing_mm: Spacing | None,
    left_out: list[str] | None = None,
) -> Volume:
    """Reads equal-sized gray images, in this order, as one volume called `name`.

    Raises:
      SkipVolume: too few images, images of several sizes, or one that cannot be decoded.
    """
    if len(files) < max(minimum_frames, 1):
        raise SkipVolume(
            SkipReason.TOO_FEW_FRAMES,
            f"{len(files)} image(s) named alike, a volume needs at least {minimum_frames}",
        )
    frames = (_read_image(path) for path in files)
    stack = _stacked(frames, [path.name for path in files])
    notes: dict[str, Any] = {"files": len(files), "frame_order": "file_number"}
    if left_out:
        notes["images_left_out"] = left_out
    volume = plain_volume(stack, name, "image_folder", minimum_frames, spacing_mm, notes)
    # All files are named alike, so that the first speaks for them.
    eye = eye_of_name(files[0].stem) or volume.metadata["laterality"]
    return dataclasses.replace(volume, metadata=volume.metadata | {"laterality": eye})


def read_tiff_stack(path: Path, minimum_frames: int, spacing_mm: Spacing | None) -> Volume:
    """Reads the pages of a TIFF file as one volume.

    Raises:
      SkipVolume: too few pages, pages of several sizes, one that cannot be decoded, or a layout
        that only ImageJ knows.
    """
    try:
        with Image.open(path) as image:
            pages, declared = _pages(image), _imagej_pages(image)
            if declared > pages > 0:
                raise SkipVolume(
                    SkipReason.UNSUPPORTED_FORMAT,
                    f"{declared} images of ImageJ after {pages} TIFF page(s); save it as an "
                    "ordinary TIFF stack",
                )
            if pages < minimum_frames:
                raise SkipVolume(
                    SkipReason.TOO_FEW_FRAMES,
                    f"{pages} page(s), a volume needs at least {minimum_frames}",
                )
            stack = _stacked(_page_arrays(image, pages), [f"page {n}" for n in range(pages)])
    except _IMAGE_ERRORS as error:
        raise SkipVolume(
            SkipReason.CORRUPT_FRAMES, f"{path.name} cannot be decoded ({error})"
        ) from error
    notes: dict[str, Any] = {"frame_order": "stored"}
    return plain_volume(stack, path, "tiff_stack", minimum_frames, spacing_mm, notes)


def _page_arrays(image: Image.Image, pages: int) -> Iterator[np.ndarray]:
    for number in range(pages):
        image.seek(number)
        yield _gray(image, f"page {number}")


def _stacked(frames: Iterable[np.ndarray], names: list[str]) -> np.ndarray:
    """Frames of one size and type as one array, without a second copy of all of them."""
    stack: np.ndarray | None = None
    for index, frame in enumerate(frames):
        if stack is None:
            if len(names) * frame.size > MAX_VOXELS:
                raise SkipVolume(SkipReason.TOO_LARGE, f"{len(names)} images of {frame.shape}")
            stack = np.empty((len(names), *frame.shape), frame.dtype)
        if frame.shape != stack.shape[1:] or frame.dtype != stack.dtype:
            raise SkipVolume(
                SkipReason.MIXED_FRAME_SIZES,
                f"{names[index]} is {frame.shape} {frame.dtype}, "
                f"{names[0]} is {stack.shape[1:]} {stack.dtype}",
            )
        stack[index] = frame
    assert stack is not None  # a volume of no frames was refused above
    return stack


def _read_image(path: Path) -> np.ndarray:
    """Gray image [row, column]."""
    try:
        with Image.open(path) as image:
            return _gray(image, path.name)
    except _IMAGE_ERRORS as error:
        raise SkipVolume(
            SkipReason.CORRUPT_FRAMES, f"{path.name} cannot be decoded ({error})"
        ) from error


def _gray(image: Image.Image, name: str) -> np.ndarray:
    """The open page as uint8, uint16 or float32 [row, column]."""
    if image.width * image.height > MAX_FRAME_PIXELS:
        raise SkipVolume(SkipReason.TOO_LARGE, f"{name} is {image.size}")
    # 16-bit gray images open as "I" or as "I;16", by the version of Pillow.
    if image.mode.startswith("I;16") or image.mode == "I":
        return np.asarray(image).astype(np.uint16)
    if image.mode == "F":
        return np.asarray(image)
    return np.asarray(image.convert("L"))
