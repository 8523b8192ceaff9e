"""Frames and masks as people store them: color, gray, with alpha, by a palette, of 8 or 16 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from training.errors import InputError

_SUFFIXES = (".png", ".jpg", ".jpeg")
_COLORED = 16  # levels between channels of a pixel; less is what JPEG does to gray
_DEEP = ("I", "I;16", "I;16B", "I;16L")  # Pillow's modes of 16-bit gray


def picture_paths(folder: Path) -> list[Path]:
    """Pictures of a folder by name; empty where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width), from the header alone.

    Raises:
      InputError: the file is missing or no picture.
    """
    with _opened(path) as picture:
        return picture.height, picture.width


def read_color(path: Path) -> np.ndarray:
    """[H, W, 3] uint8; gray becomes color, alpha is dropped, 16 bits become 8.

    Raises:
      InputError: the file is missing or damaged.
    """
    picture = _loaded(path)
    if picture.mode in _DEEP:
        return np.repeat(_eight_bits(picture)[..., None], 3, axis=2)
    # Alpha is dropped, not blended: what lies under it is what the camera saw.
    return np.array(picture.convert("RGB"))


def read_gray(path: Path) -> np.ndarray:
    """[H, W] uint8 gray levels; colors of a palette count, not the numbers that stand for them.

    Raises:
      InputError: the file is missing, damaged, or not gray.
    """
    picture = _loaded(path)
    if picture.mode in _DEEP:
        return np.asarray(picture).clip(0, 255).astype(np.uint8)
    color = np.array(picture.convert("RGB"))
    if np.ptp(color, axis=2).max() > _COLORED:
        raise InputError(
            f"the mask {path} has colors; write gray levels: 0 background, 50 object, 150 right "
            "hand, 250 left hand"
        )
    return color[..., 0]


def _eight_bits(picture: Image.Image) -> np.ndarray:
    levels = np.asarray(picture).astype(np.int64)
    return (levels.clip(0, 65535) // 257).astype(np.uint8)


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise InputError(f"there is no frame {path}; extract the frames again") from None
    except (OSError, SyntaxError) as error:
        raise _unreadable(path, error) from None


def _loaded(path: Path) -> Image.Image:
    picture = _opened(path)
    try:
        picture.load()
    except (OSError, SyntaxError) as error:
        raise _unreadable(path, error) from None
    return picture


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is no readable picture ({error}); extract it again")
