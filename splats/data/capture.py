"""What a data set declares before any image is opened: views, cameras, points, its own split.

`read_capture` recognises the three kinds of data set by their files. World axes are the data set's
own; cameras look along +z with x right and y down (COLMAP), whatever the file's convention.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from splats.data.camera_models import Camera
from splats.data.colmap import find_model, read_model
from training.errors import ConfigError, InputError

_DESCRIPTIONS = {
    "colmap": "COLMAP model (sparse/0/cameras.bin or .txt)",
    "nerfstudio": "transforms.json",
    "blender": "transforms_train.json",
}
KINDS = tuple(_DESCRIPTIONS)


@dataclass(frozen=True)
class View:
    """One photograph as declared.

    `name` is unique in the capture and relative to the image folder (COLMAP) or to the data set
    (others); `world_to_camera` [4,4] float64; `camera` is None when the size is only in the image
    (Blender), then `angle` is the horizontal field of view in radians; `mask` is relative to the
    data set.
    """

    name: str
    world_to_camera: np.ndarray
    camera: Camera | None
    angle: float | None = None
    mask: str | None = None

    def camera_for(self, width: int, height: int) -> Camera:
        """The camera of an image of this actual size, each axis rescaled by actual/declared."""
        if self.camera is not None:
            return self.camera.resized(width, height)
        focal = 0.5 * width / np.tan(0.5 * float(self.angle or 0))
        return Camera("PINHOLE", width, height, (focal, focal, width / 2, height / 2))


@dataclass(frozen=True)
class Capture:
    """A data set. `points` [N,3] float64 and `colours` [N,3] uint8; `lists`: its own split."""

    kind: str
    folder: Path
    views: tuple[View, ...]
    points: np.ndarray
    colours: np.ndarray
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_capture(path: Path | str, kind: str | None = None) -> Capture:
    """Reads the data set in folder `path`.

    `kind` (one of `KINDS`) chooses where a folder holds several descriptions; the default prefers
    COLMAP. Raises ConfigError for an unknown kind and InputError when there is no description.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder of a scene.")
    if kind not in (None, *KINDS):
        raise ConfigError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}.")
    found = next((name for name in KINDS if kind in (None, name) and _present(folder, name)), None)
    if found is None:
        wanted = [_DESCRIPTIONS[kind]] if kind else _DESCRIPTIONS.values()
        raise InputError(
            f"{folder} holds no {' and no '.join(wanted)}; give the folder that contains it."
        )
    capture = _read(folder, found)
    _check(capture)
    return capture


def _present(folder: Path, kind: str) -> bool:
    if kind == "colmap":
        return find_model(folder) is not None
    if kind == "nerfstudio":
        return (folder / "transforms.json").is_file()
    return any((folder / f"transforms_{part}.json").is_file() for part in ("train", "val", "test"))


def _read(folder: Path, kind: str) -> Capture:
    from splats.data.transforms_json import read_blender, read_nerfstudio

    readers = {"colmap": _from_colmap, "nerfstudio": read_nerfstudio, "blender": read_blender}
    return readers[kind](folder)


def rotation_from_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """Rotation [...,3,3] of wxyz quaternions [...,4] of any positive norm."""
    norm = np.linalg.norm(quaternion, axis=-1, keepdims=True)
    w, x, y, z = np.moveaxis(quaternion / norm, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def rigid(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """[4,4] float64 from [3,3] and [3]."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, translation
    return matrix


def _from_colmap(folder: Path) -> Capture:
    model = read_model(find_model(folder) or folder)
    views = tuple(
        View(
            image.name,
            rigid(rotation_from_quaternion(image.quaternion), image.translation),
            model.cameras[image.camera_id],
        )
        for image in sorted(model.images.values(), key=lambda image: image.name)
    )
    points, colours = model.points.positions, model.points.colours
    finite = np.isfinite(points).all(axis=1)
    notes = () if finite.all() else (f"{np.sum(~finite)} points are not finite and were dropped",)
    return Capture("colmap", folder, views, points[finite], colours[finite], notes=notes)


def _check(capture: Capture) -> None:
    if not capture.views:
        raise InputError(f"{capture.folder} lists no image; register images before training.")
    names = [view.name for view in capture.views]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InputError(
            f"{capture.folder} lists {len(twice)} images twice (first: {twice[0]}); remove the "
            "repetition, since splits and files go by name."
        )
