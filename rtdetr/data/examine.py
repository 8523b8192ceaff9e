"""One annotated image, looked at: its pixels can be read, its boxes lie on it.

Boxes refer to the upright image. Where a file carries an EXIF rotation by a quarter and its
annotations give the size of the unrotated pixels, the boxes were drawn on those and are turned with
them. (Of half a turn or a mirror image the size tells nothing.)
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from rtdetr.boxes import xywh_px
from rtdetr.data import doctor
from rtdetr.data.dataset import Objects
from rtdetr.data.decode import decode
from rtdetr.data.readers.annotations import AnnotatedImage
from training.errors import InputError

_ORIENTATION = 0x0112  # the EXIF tag
# Pillow's mode -> kind of finding; another mode than these and RGB is an `unusual_mode`.
_MODES = {
    "1": "gray_image",
    "L": "gray_image",
    "LA": "gray_image",
    "CMYK": "cmyk_image",
    "P": "palette_image",
    "PA": "palette_image",
    "RGBA": "transparent_image",
}
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_BITS = 24  # where a PNG file says its bits a channel
LEAST_SIDE = 1e-3  # px, of a box that has an area


@dataclass
class Examined:
    """What is known of an image; `encoded` is None where it cannot be used.

    Attributes:
      size: (height, width) px, upright.
      digest, pixel_digest: of the file and of its decoded pixels.
      findings: (kind, sentence).
    """

    encoded: bytes | None = None
    size: tuple[int, int] = (0, 0)
    objects: Objects | None = None
    digest: str = ""
    pixel_digest: str = ""
    findings: list[tuple[str, str]] = field(default_factory=list)


def examine(image: AnnotatedImage, labels: Mapping[int, int], known: Mapping[int, str]) -> Examined:
    """Reads, decodes and checks an image.

    Args:
      labels: category id -> label.
      known: every category id of the split -> name; one without a label is left out on purpose.
    """
    found = Examined()
    try:
        encoded = image.read()
    except OSError as error:
        found.findings.append(("missing_image", f"{image.name}: {error}"))
        return found
    try:
        pixels = decode(encoded, image.name)
        raw_size, orientation, mode = _header(encoded)
    except (InputError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        found.findings.append(("unreadable_image", f"{image.name}: {error}"))
        return found
    found.encoded, found.size = encoded, (pixels.shape[0], pixels.shape[1])
    found.digest = hashlib.sha256(encoded).hexdigest()
    found.pixel_digest = hashlib.sha256(
        repr(pixels.shape).encode() + np.ascontiguousarray(pixels).data
    ).hexdigest()
    if encoded.startswith(_PNG) and encoded[_PNG_BITS] == 16:
        mode = "I;16"  # Pillow calls colors of 16 bits RGB
    _note_form(found, image, raw_size, orientation, mode)
    found.objects = _objects(found, image, labels, known, raw_size, orientation)
    return found


def _header(encoded: bytes) -> tuple[tuple[int, int], int, str]:
    """(height, width) as stored, EXIF orientation, mode."""
    with Image.open(io.BytesIO(encoded)) as image:
        return (image.height, image.width), int(image.getexif().get(_ORIENTATION, 1)), image.mode


def _note_form(
    found: Examined,
    image: AnnotatedImage,
    raw_size: tuple[int, int],
    orientation: int,
    mode: str,
) -> None:
    if mode.startswith(("I", "F")):
        found.findings.append(("image_of_16_bit", f"{image.name} has the mode {mode}"))
    elif mode in _MODES:
        found.findings.append((_MODES[mode], image.name))
    elif mode != "RGB":
        found.findings.append(("unusual_mode", f"{image.name} has the mode {mode}"))
    if image.size is not None and image.size not in (found.size, raw_size):
        said, real = (f"{size[1]} x {size[0]}" for size in (image.size, found.size))
        found.findings.append(("wrong_size", f"{image.name} is {real} px and not {said}"))
    if orientation > 1:
        turned = image.size == raw_size != found.size
        kind = "rotated_by_exif" if turned else "upright_by_exif"
        found.findings.append((kind, f"{image.name}, orientation {orientation}"))


def _objects(
    found: Examined,
    image: AnnotatedImage,
    labels: Mapping[int, int],
    known: Mapping[int, str],
    raw_size: tuple[int, int],
    orientation: int,
) -> Objects:
    kept: list[tuple[np.ndarray, int, bool, float, int]] = []
    height, width = found.size
    on_raw = orientation > 1 and image.size == raw_size != found.size
    seen: set[tuple] = set()
    for number, item in enumerate(image.objects):
        where = f"{image.name}, object {number if item.id is None else item.id}"
        if item.category not in known:
            found.findings.append(("unknown_category", f"{where}: id {item.category}"))
            continue
        if item.category not in labels:
            continue  # of a grouping category, which is reported once
        if item.box is None or not np.isfinite(item.box).all():
            found.findings.append(("box_without_numbers", f"{where}: {item.box}"))
            continue
        corners = _corners(item.box, found.size if image.fractions else None)
        if on_raw:
            corners = _turned(corners, orientation, raw_size)
        box = corners.clip(0, (width, height, width, height))
        sides = box[2:] - box[:2]
        if not (corners[2:] - corners[:2] > LEAST_SIDE).all():
            found.findings.append(("box_without_area", f"{where}: {_listed(item.box)}"))
            continue
        if not (sides > LEAST_SIDE).all():
            found.findings.append(
                ("box_outside", f"{where}: {_listed(item.box)} of {width} x {height}")
            )
            continue
        # One pixel is a matter of counting (VOC), half a pixel of rounding.
        if np.abs(box - corners).max() > 1.0:
            found.findings.append(("box_clipped", f"{where}: {_listed(item.box)}"))
        if (sides < 1).any():
            found.findings.append(("tiny_box", f"{where}: {_listed(item.box)}"))
        key = (item.category, item.crowd, *np.round(box, 2).tolist())
        if key in seen:
            found.findings.append(("duplicate_box", f"{where}: {_listed(item.box)}"))
            continue
        seen.add(key)
        area = float(sides.prod()) if item.area is None or not np.isfinite(item.area) else item.area
        identity = -1 if item.id is None else item.id
        kept.append(
            (np.concatenate([box[:2], sides]), labels[item.category], item.crowd, area, identity)
        )
    if not kept:
        found.findings.append(("image_without_object", image.name))
    if len(kept) > doctor.MANY:
        found.findings.append(("many_objects", f"{image.name} has {len(kept)}"))
    boxes = np.array([k[0] for k in kept], np.float32).reshape(-1, 4)
    return Objects(
        xywh_px(boxes, np.array(found.size)),
        np.array([k[1] for k in kept], np.int32),
        np.array([k[2] for k in kept], bool),
        np.array([k[3] for k in kept], np.float32),
        np.array([k[4] for k in kept], np.int64),
    )


def _corners(box: tuple[float, float, float, float], size: tuple[int, int] | None) -> np.ndarray:
    """fp64 left, top, right, bottom in px; `size`: of the image, where the box is in fractions."""
    left, top, width, height = box
    corners = np.array([left, top, left + width, top + height], np.float64)
    if size is not None:
        corners *= (size[1], size[0], size[1], size[0])
    return corners


def _turned(corners: np.ndarray, orientation: int, raw_size: tuple[int, int]) -> np.ndarray:
    """A box on the stored pixels as a box on the upright image (EXIF 2.3, orientations 5 to 8)."""
    height, width = raw_size
    x, y = corners[[0, 2]], corners[[1, 3]]
    upright = {
        5: (y, x),
        6: (height - y, x),
        7: (height - y, width - x),
        8: (y, width - x),
    }[orientation]
    across, down = upright
    return np.array([across.min(), down.min(), across.max(), down.max()])


def _listed(box: tuple[float, float, float, float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in box) + ")"
