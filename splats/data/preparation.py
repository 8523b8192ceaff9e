"""From a declared view to the pixels that training compares with: one pinhole image and its mask.

Order of work on a view: decode; undistort at the size of the file; then shrink. An existing folder
`images_<factor>` is preferred to shrinking. Results are cached as PNG files whose names carry a
digest of everything that went in, so that a stale entry is never read; they appear whole, so that
several processes may fill one cache. The cache may lie in a bucket.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from etils import epath
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from splats.data.camera_models import Camera
from splats.data.capture import Capture, View
from splats.data.images import (
    decode_image,
    decode_mask,
    find_image,
    is_file,
    resize_color,
    resize_valid,
)
from splats.data.undistortion import Remap, build_remap, sample_bilinear, undistort
from training import storage
from training.errors import ConfigError, InputError

_CACHE_VERSION = 2  # raise it when the same inputs give other pixels
ALPHA_MODES = ("mask", "background")


@dataclass(frozen=True)
class PreparedView:
    """What training compares with, and the pinhole camera that took it.

    image: [height,width,3] uint8, times `alpha`: as it looks on black.
    alpha: [height,width] uint8, how opaque; None where all is.
    valid: [height,width] bool; None where every pixel counts.
    """

    image: np.ndarray
    alpha: np.ndarray | None
    valid: np.ndarray | None
    camera: Camera
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageFile:
    """Where the pixels of a view are; `shrink` is the factor that is still to be applied."""

    path: Path
    shrink: int
    mask: Path | None


@dataclass
class Preparation:
    """Settings of one data set, and the undistortion maps made so far (one a camera and size)."""

    capture: Capture
    images: str = "images"
    factor: int | None = None
    masks: str = "masks"
    alpha: str = "mask"
    cache: epath.Path | None = None
    remaps: dict[Camera, Remap] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self):
        if self.factor is not None and not 1 <= self.factor <= 64:
            raise ConfigError(f"factor is {self.factor}; it must lie between 1 and 64.")
        if self.alpha not in ALPHA_MODES:
            raise ConfigError(f"alpha is {self.alpha!r}; choose 'mask' or 'background'.")

    def find(self, view: View) -> ImageFile | None:
        """The file of a view, or None when there is none."""
        folder = self.capture.folder
        factor = self.factor or 1
        mask = self._find_mask(view)
        if self.capture.kind == "colmap":
            small = find_image(folder / f"{self.images}_{factor}", view.name)
            full = find_image(folder / self.images, view.name)
        else:
            parts = Path(view.name).parts
            small_name = Path(f"{parts[0]}_{factor}", *parts[1:])
            small = find_image(folder, str(small_name)) if len(parts) > 1 else None
            full = find_image(folder, view.name)
        # The data set's own shrunk images come first: published scores are of those.
        if factor > 1 and small is not None:
            return ImageFile(small, 1, mask)
        return None if full is None else ImageFile(full, factor, mask)

    def _find_mask(self, view: View) -> Path | None:
        folder = self.capture.folder
        if view.mask is not None:
            path = folder / view.mask
            if not is_file(path):
                raise InputError(f"The mask {path} of {view.name} is missing; restore it.")
            return path
        masks, parts = folder / self.masks, Path(view.name).parts
        found = find_image(masks, view.name)
        if found is None and self.capture.kind != "colmap" and len(parts) > 1:
            found = find_image(masks, str(Path(*parts[1:])))  # without the image folder's name
        return found

    def find_all(self) -> tuple[dict[str, ImageFile], tuple[str, ...]]:
        """Files by view name, and the names without one."""
        found = {view.name: self.find(view) for view in self.capture.views}
        missing = tuple(name for name, file in found.items() if file is None)
        return {name: file for name, file in found.items() if file is not None}, missing

    def masks_by_view(self) -> dict[str, Path]:
        """The masks of all listed views that have one, those without an image included."""
        found = {view.name: self._find_mask(view) for view in self.capture.views}
        return {name: mask for name, mask in found.items() if mask is not None}

    def prepare_all(self, files: dict[str, ImageFile]) -> list[PreparedView]:
        """The views that have files, in order; decoding runs in threads."""
        views = [view for view in self.capture.views if view.name in files]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            return list(pool.map(lambda view: self.prepare(view, files[view.name]), views))

    def prepare(self, view: View, file: ImageFile) -> PreparedView:
        """Reads the cache or does the work."""
        if self.cache is None:
            return self._work(view, file)
        entry = self.cache / f"{_cache_key(self, view, file)}.png"
        if entry.exists():
            return _read_cache(entry)
        prepared = self._work(view, file)
        _write_cache(entry, prepared)
        return prepared

    def _work(self, view: View, file: ImageFile) -> PreparedView:
        declared = view.camera
        decoded = decode_image(file.path, declared and (declared.width, declared.height))
        height, width = decoded.color.shape[:2]
        camera = view.camera_for(width, height)
        image, alpha, valid = _apply_alpha(decoded.color, decoded.alpha, self.alpha)
        if file.mask is not None:
            mask = decode_mask(file.mask, width, height)
            valid = mask if valid is None else valid & mask
        view_of_file = PreparedView(image, alpha, valid, camera, decoded.notes)
        prepared = view_of_file if camera.is_pinhole else self._undistort(view_of_file)
        fx, fy, cx, cy = prepared.camera.pinhole
        plain = Camera("PINHOLE", prepared.camera.width, prepared.camera.height, (fx, fy, cx, cy))
        prepared = _shrink(replace(prepared, camera=plain), file.shrink)
        # What says nothing is left out: it would take memory on the devices and work in the loss.
        if prepared.valid is not None and prepared.valid.all():
            prepared = replace(prepared, valid=None)
        if prepared.alpha is not None and prepared.alpha.min() == 255:
            prepared = replace(prepared, alpha=None)
        return prepared

    def _undistort(self, view: PreparedView) -> PreparedView:
        # Views share cameras: the lock lets one thread build a map while the others wait for it.
        with self.lock:
            remap = self.remaps.get(view.camera)
            if remap is None:
                remap = self.remaps[view.camera] = build_remap(view.camera)
        kept = remap.valid
        if view.valid is not None:
            gray = np.where(view.valid, 255, 0).astype(np.uint8)[..., None]
            # Only where all four neighbors count: a mask must not leak by interpolation.
            kept = kept & (sample_bilinear(gray, remap.source)[..., 0] == 255)
        alpha = view.alpha
        if alpha is not None:
            alpha = undistort(alpha[..., None], remap)[..., 0]
        image = undistort(view.image, remap)
        return PreparedView(image, alpha, kept, remap.camera, view.notes)


def _apply_alpha(
    color: np.ndarray, alpha: np.ndarray | None, mode: str
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Color, alpha and what counts: transparent pixels do not (`mask`) or show the background.

    Colors are multiplied by alpha at once, since the color of a transparent pixel is arbitrary and
    must not leak into its neighbors when the image is resampled.
    """
    if alpha is None:
        return color, None, None
    if mode == "mask":
        return color, None, alpha >= 128
    weight = alpha[..., None].astype(np.float32) / 255
    return np.rint(color * weight).astype(np.uint8), alpha, None


def _shrink(view: PreparedView, factor: int) -> PreparedView:
    if factor == 1:
        return view
    camera = view.camera
    width, height = (max(1, int(side / factor + 0.5)) for side in (camera.width, camera.height))
    return PreparedView(
        resize_color(view.image, width, height),
        None if view.alpha is None else resize_color(view.alpha, width, height),
        None if view.valid is None else resize_valid(view.valid, width, height),
        camera.resized(width, height),
        view.notes,
    )


def _cache_key(preparation: Preparation, view: View, file: ImageFile) -> str:
    """A readable file name that ends in the digest of all inputs."""
    # Size and time stand for the content: reading it would cost what the cache is to save.
    stats = [os.stat(path) for path in (file.path, file.mask) if path is not None]
    content = [
        _CACHE_VERSION,
        view.name,
        view.camera and (view.camera.model, view.camera.width, view.camera.height),
        view.camera and view.camera.params,
        view.angle,
        file.shrink,
        preparation.alpha,
        [str(file.path), str(file.mask)],
        [(stat.st_size, stat.st_mtime_ns) for stat in stats],
    ]
    digest = hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()
    # Cut, since file systems bound the length of a name.
    return f"{Path(view.name).stem[:60]}_{file.shrink}_{digest}"


def _write_cache(entry: epath.Path, prepared: PreparedView) -> None:
    pixels, valid = prepared.image, prepared.valid
    if prepared.alpha is not None:
        # Opacity follows below the colors: two files would not appear at once.
        below = np.repeat(prepared.alpha[..., None], 3, axis=2)
        pixels = np.concatenate([pixels, below])
        valid = None if valid is None else np.concatenate([valid, valid])
    image = Image.fromarray(pixels)
    if valid is not None:
        image.putalpha(Image.fromarray(np.where(valid, 255, 0).astype(np.uint8)))
    info = PngInfo()
    info.add_text("camera", json.dumps([*prepared.camera.params]))
    info.add_text("notes", json.dumps(list(prepared.notes)))
    info.add_text("transparent", json.dumps(prepared.alpha is not None))
    file = io.BytesIO()
    # Fast rather than small: the cache is to save time.
    image.save(file, "PNG", pnginfo=info, compress_level=1)
    try:
        storage.replace_bytes(entry, file.getvalue())
    except (OSError, *storage.failures()) as error:
        raise InputError(f"The cache {entry.parent} cannot be written: {error}.") from error


def _read_cache(entry: epath.Path) -> PreparedView:
    decoded = decode_image(entry)
    keys = ("camera", "notes", "transparent")
    try:
        with entry.open("rb") as file, Image.open(file) as opened:
            params, notes, transparent = (json.loads(opened.info[key]) for key in keys)
        height, width = decoded.color.shape[:2]
        if transparent:
            height //= 2
        camera = Camera("PINHOLE", width, height, tuple(params))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"The cache entry {entry} is damaged; delete it.") from error
    alpha = decoded.color[height:, :, 0] if transparent else None
    valid = None if decoded.alpha is None else decoded.alpha[:height] >= 128
    return PreparedView(decoded.color[:height], alpha, valid, camera, tuple(notes))
