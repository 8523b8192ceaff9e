"""What a data set declares before any image is opened: views, cameras, points, its own split.

`read_capture` recognizes the three kinds of data set by their files. World axes are the data set's
own; cameras look along +z with x right and y down (COLMAP), whatever the file's convention.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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
FARTHEST = 1e9  # units from the origin of the data set; also georeferenced scenes stay far below
_OUTLIER = 1e4  # median distances from the median, of points that no photograph can show
_ASPECT_TOLERANCE = 0.05  # of the sides' ratio, beyond what rounding of sizes explains


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
            self._check_aspect(width, height)
            return self.camera.resized(width, height)
        focal = 0.5 * width / np.tan(0.5 * float(self.angle or 0))
        return Camera("PINHOLE", width, height, (focal, focal, width / 2, height / 2))

    def _check_aspect(self, width: int, height: int) -> None:
        """Raises InputError where the image cannot be a resized version of the declared one."""
        assert self.camera is not None
        wide, high = self.camera.width, self.camera.height
        # A resized side may be rounded either way: one pixel of each.
        slack = _ASPECT_TOLERANCE + 1 / width + 1 / height
        if abs(np.log(width / height * high / wide)) > slack:
            raise InputError(
                f"The image {self.name} has {width} x {height} pixels and its camera is declared "
                f"for {wide} x {high}, which is another shape; restore the image that was "
                "registered (not rotated, not cropped)."
            )


@dataclass(frozen=True)
class Capture:
    """A data set. `points` [N,3] float64 and `colors` [N,3] uint8; `lists`: its own split."""

    kind: str
    folder: Path
    views: tuple[View, ...]
    points: np.ndarray
    colors: np.ndarray
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
    found = next(
        (name for name in KINDS if kind in (None, name) and described_as(folder, name)), None
    )
    if found is None:
        wanted = [_DESCRIPTIONS[kind]] if kind else _DESCRIPTIONS.values()
        raise InputError(
            f"{folder} holds no {' and no '.join(wanted)}; give the folder that contains it."
        )
    capture = _read(folder, found)
    _check(capture)
    return without_outliers(capture)


def described_as(folder: Path, kind: str) -> bool:
    """Whether `folder` holds the files of this kind of description."""
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
    return Capture("colmap", folder, views, model.points.positions, model.points.colors)


def without_outliers(capture: Capture) -> Capture:
    """The capture without points that are not finite or absurdly far, with a note that counts them.

    One point at 1e30 would decide the principal axes of the world and overflow float32.
    """
    points = capture.points
    inside = np.all(np.abs(points) < FARTHEST, axis=1)  # False for NaN
    safe = np.where(inside[:, None], points, 0.0)
    near, notes = inside, list(capture.notes)
    if inside.sum() >= 4:
        distance = np.linalg.norm(safe - np.median(safe[inside], axis=0), axis=1)
        near = inside & (distance <= _OUTLIER * max(float(np.median(distance[inside])), 1e-9))
    for dropped, problem in ((~inside, "not finite"), (inside & ~near, "absurdly far away")):
        if dropped.any():
            notes.append(f"{np.sum(dropped)} points are {problem} and were dropped")
    colors = capture.colors[near]
    return replace(capture, points=points[near], colors=colors, notes=tuple(notes))


def _check(capture: Capture) -> None:
    if not capture.views:
        raise InputError(f"{capture.folder} lists no image; register images before training.")
    for view in capture.views:
        if Path(view.name).name in ("", ".."):
            raise InputError(
                f"{capture.folder} lists an image with the name {view.name!r}, which no file can "
                "have; export it again."
            )
        if not np.abs(view.world_to_camera[:3, 3]).max() < FARTHEST:
            raise InputError(
                f"The camera of {view.name} in {capture.folder} stands more than {FARTHEST:g} "
                "units from the origin; register that image again."
            )
    names = [view.name for view in capture.views]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InputError(
            f"{capture.folder} lists {len(twice)} images twice (first: {twice[0]}); remove the "
            "repetition, since splits and files go by name."
        )
