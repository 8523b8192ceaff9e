"""Decoding photographs: eight bits a channel, three channels, what is transparent apart.

Orientation: COLMAP reads pixels as stored and ignores the EXIF tag, so the stored pixels are right
unless only the rotated ones fit the declared size.
"""

from __future__ import annotations

import errno
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from etils import epath
from PIL import Image, ImageOps

from training.errors import InputError

_LOWER = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
SUFFIXES = (*_LOWER, *(suffix.upper() for suffix in _LOWER))
_EXIF_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)


@dataclass(frozen=True)
class DecodedImage:
    """`color` [height,width,3] uint8; `alpha` [height,width] uint8 or None; what was changed."""

    color: np.ndarray
    alpha: np.ndarray | None
    notes: tuple[str, ...] = ()


def decode_image(path: Path | epath.Path, declared: tuple[int, int] | None = None) -> DecodedImage:
    """Reads `path`; `declared` (width, height) only decides about EXIF rotation.

    Raises InputError for files that are unreadable, cut off, or of a kind without a known range.
    """
    try:
        with warnings.catch_warnings():
            # Large photographs are no attack; twice Pillow's limit stays an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with path.open("rb") as file, Image.open(file) as opened:
                opened.load()
                return _convert(opened, path, declared)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"The image {path} cannot be decoded ({error}); replace it or unregister it."
        ) from error


def _convert(
    image: Image.Image, path: Path | epath.Path, declared: tuple[int, int] | None
) -> DecodedImage:
    notes = []
    if _needs_rotation(image, declared):
        image = ImageOps.exif_transpose(image)
        notes.append("rotated by its EXIF tag to fit the declared size")
    if image.mode.startswith("I;16"):
        # The upper eight bits: as bright as a viewer shows it.
        gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return DecodedImage(np.repeat(gray[..., None], 3, 2), None, (*notes, "16 bit cut to 8"))
    if image.mode in ("I", "F"):
        raise InputError(
            f"The image {path} has {image.mode} pixels of unknown range; store it with 8 bits a "
            "channel."
        )
    if "A" in image.getbands() or "transparency" in image.info:
        array = np.asarray(image.convert("RGBA"))
        return DecodedImage(array[..., :3].copy(), array[..., 3].copy(), tuple(notes))
    return DecodedImage(np.asarray(image.convert("RGB")), None, tuple(notes))


def _needs_rotation(image: Image.Image, declared: tuple[int, int] | None) -> bool:
    """True when the EXIF tag turns by a quarter and only the turned image has the right aspect."""
    if declared is None or image.getexif().get(_EXIF_ORIENTATION) not in _QUARTER_TURNS:
        return False
    width, height = image.size
    stored = abs(np.log(width / height * declared[1] / declared[0]))
    turned = abs(np.log(height / width * declared[1] / declared[0]))
    return bool(turned < stored)


def decode_mask(path: Path, width: int, height: int) -> np.ndarray:
    """[height,width] bool, True where pixels count; resized by nearest neighbor if needed."""
    decoded = decode_image(path)
    mask = decoded.color.max(axis=2)
    # An alpha channel that is opaque everywhere says nothing.
    if decoded.alpha is not None and decoded.alpha.min() < 255:
        mask = decoded.alpha
    if mask.shape != (height, width):
        mask = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    # Some programs write the classes 0 and 1 themselves instead of black and white.
    return mask >= (1 if mask.max() == 1 else 128)


def resize_color(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """[height,width] or [height,width,3] uint8 by Lanczos, which averages over an output pixel."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def resize_valid(valid: np.ndarray, width: int, height: int) -> np.ndarray:
    """[height,width] bool: an output pixel counts only where all pixels under it do."""
    gray = Image.fromarray(np.where(valid, 255, 0).astype(np.uint8))
    return np.asarray(gray.resize((width, height), Image.Resampling.BOX)) == 255


def find_image(folder: Path, name: str) -> Path | None:
    """`folder/name`, or the file of the same stem with another known suffix, or None."""
    exact = folder / name
    if is_file(exact):
        return exact
    candidates = [exact.with_name(exact.name + suffix) for suffix in SUFFIXES]
    if exact.suffix in SUFFIXES:
        candidates += [exact.with_suffix(suffix) for suffix in SUFFIXES]
    return next((path for path in candidates if is_file(path)), None)


def is_file(path: Path) -> bool:
    """Whether `path` is a file; False for names that no file can have (damaged models)."""
    try:
        return path.is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise InputError(f"{path} cannot be looked at ({error.strerror}).") from error
