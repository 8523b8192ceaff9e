"""Image files as pixels: uint8 RGB, upright, complete.

JPEG files of one or three components go to OpenCV, which is the fastest decoder here; all others go
to Pillow, which is right about the rest (CMYK, palettes, 16 bits, TIFF, WebP, ...). Both apply the
EXIF orientation. Transparency is left out and the color under it shows, as wherever detectors are
trained from `convert("RGB")`.
"""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
from PIL import Image, ImageOps

from training.errors import InputError

# Examples are read by several threads or processes, each with a core of its own; threads of
# OpenCV's besides would only take those cores from each other.
cv2.setNumThreads(0)

# What the decoders and Pillow's parsers raise for damaged bytes.
_DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    RuntimeError,
    LookupError,
    ArithmeticError,
    struct.error,
    cv2.error,
    Image.DecompressionBombError,
)


def decode(encoded: bytes, name: str) -> np.ndarray:
    """The pixels of an image file.

    Args:
      encoded: the file.
      name: what an error calls it.

    Returns:
      uint8 [height, width, 3] RGB, upright.

    Raises:
      InputError: it is empty, no image, cut off, or has values whose range is not known.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            if opened.format == "JPEG" and opened.mode in ("L", "RGB"):
                return _decoded_jpeg(encoded, name)
            return _decoded_otherwise(opened, name)
    except _DAMAGED as error:
        raise _unreadable(name, str(error) or type(error).__name__) from error


def _decoded_jpeg(encoded: bytes, name: str) -> np.ndarray:
    # None where the data ends before the picture does. A loss in the middle of a file that has its
    # end goes unseen: libjpeg paints gray over it, and neither OpenCV nor Pillow says so.
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise _unreadable(name, "it is damaged or was cut off")
    return pixels


def _decoded_otherwise(opened: Image.Image, name: str) -> np.ndarray:
    upright = ImageOps.exif_transpose(opened)
    if upright.mode == "F":
        raise _unreadable(name, "it has floating-point values, whose range is not known")
    if upright.mode.startswith("I"):  # 16 or 32 bits a pixel, gray
        return _from_wide_integers(np.asarray(upright), name)
    return np.asarray(upright.convert("RGB"))


def _from_wide_integers(values_HxW: np.ndarray, name: str) -> np.ndarray:
    """The higher one of two bytes, as gray; Pillow's own conversion would make most of it white."""
    if values_HxW.min() < 0 or values_HxW.max() > 0xFFFF:
        raise _unreadable(name, "it has values of more than 16 bits")
    high = (values_HxW.astype(np.uint16) >> 8).astype(np.uint8)
    return np.repeat(high[..., None], 3, axis=-1)


def _unreadable(name: str, reason: str) -> InputError:
    return InputError(
        f"the image {name} cannot be read: {reason[:160]}; replace the file or take it out of the "
        "data set"
    )
