"""Reading a data set's description: the kind is recognized by its files, the content is checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from splats.data.capture import FARTHEST, Capture, View
from splats.data.colmap import count_images, find_model, numbered_models, read_model
from splats.data.transforms_json import read_blender, read_nerfstudio
from training.errors import ConfigError, InputError

_DESCRIPTIONS = {
    "colmap": "COLMAP model (sparse/0/cameras.bin or .txt)",
    "nerfstudio": "transforms.json",
    "blender": "transforms_train.json",
}
KINDS = tuple(_DESCRIPTIONS)
_OUTLIER = 1e4  # median distances from the median, of points that no photograph can show


def read_capture(path: Path | str, kind: str | None = None, sparse: str | None = None) -> Capture:
    """Reads the data set in folder `path`.

    `kind` (one of `KINDS`) chooses where a folder holds several descriptions; the default prefers
    COLMAP. `sparse` chooses of several COLMAP models (default: the one with most images). Raises
    ConfigError for choices that cannot be and InputError when there is no description.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder of a scene.")
    if kind not in (None, *KINDS):
        raise ConfigError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}.")
    if sparse is not None:
        if kind not in (None, "colmap"):
            raise ConfigError(f"sparse is {sparse!r}, a COLMAP model, and kind is {kind!r}.")
        return _checked(_from_colmap(folder, sparse))
    found = next(
        (name for name in KINDS if kind in (None, name) and described_as(folder, name)), None
    )
    if found is None:
        wanted = [_DESCRIPTIONS[kind]] if kind else _DESCRIPTIONS.values()
        raise InputError(
            f"{folder} holds no {' and no '.join(wanted)}; give the folder that contains it."
        )
    return _checked(_read(folder, found))


def _checked(capture: Capture) -> Capture:
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


def _from_colmap(folder: Path, chosen: str | None = None) -> Capture:
    found = find_model(folder, chosen) or folder
    model = read_model(found)
    others = [other for other in numbered_models(found.parent) if other != found]
    notes = ()
    if others:
        listed = ", ".join(f"{other.name} with {count_images(other)}" for other in others)
        another = others[0].relative_to(folder)
        notes = (
            f"the capture fell apart into {len(others) + 1} models: model {found.name} with "
            f"{len(model.images)} images is used, not {listed} (config.scene.sparse={another} "
            "would take that one)",
        )
    # Sorted by name, not by number: splits go by name, and numbers change when COLMAP runs again.
    views = tuple(
        View(
            image.name,
            rigid(rotation_from_quaternion(image.quaternion), image.translation),
            model.cameras[image.camera_id],
        )
        for image in sorted(model.images.values(), key=lambda image: image.name)
    )
    points = model.points
    return Capture("colmap", folder, views, points.positions, points.colors, notes=notes)


def without_outliers(capture: Capture) -> Capture:
    """The capture without points that are not finite or absurdly far, with a note that counts them.

    One point at 1e30 would decide the principal axes of the world and overflow float32.
    """
    points = capture.points
    # In two steps, because a median is meaningless beside values that are not finite.
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
