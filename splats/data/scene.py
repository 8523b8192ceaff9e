"""A scene in memory: everything that training a radiance field needs, as numpy arrays.

Frames of reference: world coordinates are the normalized ones (see `normalization.py`) unless
normalizing was turned off; cameras have x right, y down, z forward; pixel centers lie at half
integers. Legend of shapes: view V, height H, width W, points N.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splats.data import doubts
from splats.data.capture import Capture
from splats.data.capture_reader import read_capture
from splats.data.images import SUFFIXES
from splats.data.normalization import (
    normalize_world,
    scene_scale,
    transform_cameras,
    transform_points,
)
from splats.data.preparation import Preparation, PreparedView
from splats.data.scene_facts import SceneFacts, pinholes
from splats.data.splits import Split, SplitConfig, make_split
from training import storage
from training.errors import InputError
from training.storage import PathLike


@dataclass(frozen=True)
class SceneReport:
    """What reading found: `missing` views have no image; `ignored` images have no view."""

    kind: str
    cameras: tuple[str, ...]
    listed: int
    missing: tuple[str, ...]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Scene(SceneFacts):
    """A loaded scene: its facts, pixels and points.

    images: [V,H,W,3] uint8, sRGB as stored, on black where they are transparent; views smaller
      than `size` are padded with 0 right and below.
    alpha: [V,H,W] uint8, how opaque a pixel is, where transparent ones show the background; None
      when every pixel is opaque.
    valid: [V,H,W] bool, False where a pixel must not be compared; None when every pixel counts.
    points: [N,3] float32 normalized world; point_colors: [N,3] uint8. N may be 0.
    fingerprint: digest of pixels, masks, cameras, points and split.
    """

    images: np.ndarray
    alpha: np.ndarray | None
    valid: np.ndarray | None
    points: np.ndarray
    point_colors: np.ndarray
    report: SceneReport
    fingerprint: str

    def view(self, index: int) -> np.ndarray:
        """The image [height,width,3] uint8 of one view, on black, without its padding."""
        width, height = self.sizes[index]
        return self.images[index, :height, :width]

    def view_on(self, index: int, background: tuple[float, float, float]) -> np.ndarray:
        """One view before a color in [0, 1], float32 [height,width,3], without its padding."""
        image = self.view(index).astype(np.float32) / 255.0
        if self.alpha is None:
            return image
        height, width = image.shape[:2]
        through = 1.0 - self.alpha[index, :height, :width, None].astype(np.float32) / 255.0
        return image + through * np.asarray(background, np.float32)


def load_scene(
    path: Path | str,
    *,
    images: str = "images",
    factor: int | None = None,
    split: SplitConfig | Split | None = None,
    normalize: bool = True,
    masks: str = "masks",
    alpha: str | None = None,
    cache: PathLike | None = None,
    kind: str | None = None,
    sparse: str | None = None,
) -> Scene:
    """Loads the scene in folder `path` (COLMAP, nerfstudio or Blender).

    images: image folder of a COLMAP scene. factor: shrink by this number; an existing folder
    `<images>_<factor>` is preferred. split: how to hold out views, or an earlier run's `Split`.
    kind: which description to read where a folder holds several (default: COLMAP first). sparse:
    folder of the COLMAP model, where there are several (default: the one with most images).
    masks: folder of `NAME.png` masks (black is ignored). alpha: what transparent pixels are, "mask"
    (ignored) or "background" (default: background for Blender, mask otherwise). cache: folder or
    bucket for undistorted and shrunk images.

    Raises InputError for missing, damaged or contradictory files and ConfigError for settings or a
    split that cannot work.
    """
    capture = read_capture(path, kind, sparse)
    preparation = Preparation(
        capture,
        images,
        factor,
        masks,
        alpha or ("background" if capture.kind == "blender" else "mask"),
        None if cache is None else storage.as_path(cache),
    )
    files, missing = preparation.find_all()
    if not files:
        raise InputError(
            f"None of the {len(capture.views)} images that {capture.folder} lists exists (first: "
            f"{capture.views[0].name}); {_where_images_are(capture, images)}."
        )
    names = tuple(view.name for view in capture.views if view.name in files)
    chosen = make_split(names, split or SplitConfig(), capture.lists, missing)
    prepared = preparation.prepare_all(files)
    seen = np.stack([v.world_to_camera for v in capture.views if v.name in files])
    found = [
        *doubts.of_masks(capture.folder / masks, preparation.masks_by_view(), list(files)),
        *doubts.of_parallax(seen, capture.points),
        *doubts.of_count(len(chosen.train)),
    ]
    report = _report(capture, images, prepared, missing, found)
    return _assemble(capture, names, prepared, chosen, report, normalize)


def _assemble(
    capture: Capture,
    names: tuple[str, ...],
    prepared: list[PreparedView],
    split: Split,
    report: SceneReport,
    normalize: bool,
) -> Scene:
    present = set(names)
    world_to_camera = np.stack([v.world_to_camera for v in capture.views if v.name in present])
    similarity = normalize_world(world_to_camera, capture.points) if normalize else np.eye(4)
    world_to_camera = transform_cameras(similarity, world_to_camera)
    points = transform_points(similarity, capture.points).astype(np.float32)
    images, valid, sizes = _stack(prepared)
    alpha = _stacked_alpha(prepared, images)
    arrays = {
        "images": images,
        "valid": valid,
        "sizes": sizes,
        # float32 only now: the coordinates of georeferenced worlds would lose their digits in it.
        "world_to_camera": world_to_camera.astype(np.float32),
        "intrinsics": pinholes(np.array([view.camera.pinhole for view in prepared])),
        "points": points,
        "point_colors": capture.colors,
    }
    return Scene(
        names=names,
        normalization=similarity,
        scene_scale=scene_scale(world_to_camera),
        split=split,
        kind=capture.kind,
        report=report,
        # Without alpha where there is none: the digest of such a scene stays what it was.
        fingerprint=_digest(arrays | ({} if alpha is None else {"alpha": alpha}), names, split),
        alpha=alpha,
        **arrays,
    )


def _stack(prepared: list[PreparedView]) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Images padded to the largest size, the mask of what counts (None: all), and the sizes."""
    sizes = np.array([(v.image.shape[1], v.image.shape[0]) for v in prepared], np.int32)
    width, height = sizes.max(axis=0)
    images = np.zeros((len(prepared), height, width, 3), np.uint8)
    # Padding must not be compared: views of different sizes need a mask even if they brought none.
    masked = bool((sizes != sizes[0]).any()) or any(v.valid is not None for v in prepared)
    valid = np.zeros(images.shape[:3], bool) if masked else None
    for index, view in enumerate(prepared):
        rows, columns = view.image.shape[:2]
        images[index, :rows, :columns] = view.image
        if valid is not None:
            valid[index, :rows, :columns] = True if view.valid is None else view.valid
    if valid is not None:
        blind = [i for i, mask in enumerate(valid) if not mask.any()]
        if blind:
            raise InputError(
                f"The mask of view {blind[0]} (in sorted order) leaves no pixel; white means that "
                "a pixel counts, so invert or remove the mask."
            )
    return images, valid, sizes


def _stacked_alpha(prepared: list[PreparedView], images: np.ndarray) -> np.ndarray | None:
    """Opacities padded as `images`; None where all views are opaque."""
    if all(view.alpha is None for view in prepared):
        return None
    alpha = np.zeros(images.shape[:3], np.uint8)
    for index, view in enumerate(prepared):
        rows, columns = view.image.shape[:2]
        alpha[index, :rows, :columns] = 255 if view.alpha is None else view.alpha
    return alpha


def _digest(arrays: dict[str, np.ndarray | None], names: tuple[str, ...], split: Split) -> str:
    """128 bits: few enough to be read out, far too many for two scenes to share by chance."""
    # No name is empty, so that "" separates the lists.
    words = (*names, "", *split.train, "", *split.test)
    digest = hashlib.blake2b("\n".join(words).encode(), digest_size=16)
    for label, array in arrays.items():
        shape = None if array is None else array.shape
        digest.update(f"{label}{shape}".encode())
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _where_images_are(capture: Capture, images: str) -> str:
    """What to do where no image was found."""
    if capture.kind == "colmap":
        return f"correct the 'images' folder name {images!r}"
    # These descriptions hold whole paths; a folder name of ours would not change them.
    return f"put them there, or correct file_path in the JSON of the {capture.kind} scene"


def _report(
    capture: Capture,
    images: str,
    prepared: list[PreparedView],
    missing: tuple[str, ...],
    found: list[str],
) -> SceneReport:
    cameras: dict[str, int] = {}
    for view in capture.views:
        camera = view.camera
        label = f"{camera.model} {camera.width}x{camera.height}" if camera else "PINHOLE by angle"
        cameras[label] = cameras.get(label, 0) + 1
    notes = [*capture.notes, *found]
    for note in sorted({note for view in prepared for note in view.notes}):
        count = sum(note in view.notes for view in prepared)
        notes.append(f"{count} images: {note}")
    counted = tuple(f"{label}: {count} views" for label, count in cameras.items())
    ignored = _unlisted(capture, images)
    return SceneReport(capture.kind, counted, len(capture.views), missing, ignored, tuple(notes))


def _unlisted(capture: Capture, images: str) -> tuple[str, ...]:
    """Image files of a COLMAP scene that no view names: photographs that were not registered."""
    folder = capture.folder / images
    if capture.kind != "colmap" or not folder.is_dir():
        return ()
    # Without endings, since `find_image` accepts another one.
    listed = {str(Path(view.name).with_suffix("")) for view in capture.views}
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix in SUFFIXES)
    return tuple(sorted(str(path) for path in files if str(path.with_suffix("")) not in listed))
