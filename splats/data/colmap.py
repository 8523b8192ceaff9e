"""COLMAP sparse models on disk: where they lie, reading and writing either variant.

A model is three files, `cameras`, `images` and `points3D`, binary or text. The `rigs` and `frames`
files that COLMAP 3.12 added repeat what `images` says and are ignored.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from splats.data import colmap_binary, colmap_text
from splats.data.colmap_model import ColmapModel, ColmapPoints
from training.errors import InputError


def find_model(scene: Path, chosen: str | None = None) -> Path | None:
    """The folder of the sparse model that belongs to `scene`, or None.

    COLMAP numbers the models of a capture that fell apart: of several the one with most images is
    taken, the lowest number of equals.

    Args:
      chosen: folder of the model in `scene`, instead.

    Raises:
      InputError: the chosen folder holds no model.
    """
    if chosen is not None:
        if not _is_model(scene / chosen):
            raise InputError(
                f"{scene / chosen} holds no COLMAP model (cameras.bin or .txt); correct the folder "
                "of the model (config.scene.sparse, --sparse)."
            )
        return scene / chosen
    for parent in ("sparse", "colmap/sparse"):
        models = numbered_models(scene / parent)
        if models:
            return max(models, key=lambda folder: (count_images(folder), -int(folder.name)))
    return next((scene / path for path in ("sparse", ".") if _is_model(scene / path)), None)


def numbered_models(parent: Path) -> list[Path]:
    """The models `parent/0`, `parent/1`, …, in order."""
    if not parent.is_dir():
        return []
    folders = [folder for folder in parent.iterdir() if folder.name.isdecimal()]
    return sorted(filter(_is_model, folders), key=lambda folder: int(folder.name))


def count_images(folder: Path) -> int:
    """How many images a model has registered, without reading them all; 0 where none can be."""
    binary, text = folder / "images.bin", folder / "images.txt"
    if binary.is_file():
        with binary.open("rb") as file:
            return int.from_bytes(file.read(8), "little")
    if not text.is_file():
        return 0
    with text.open(encoding="utf-8", errors="replace") as lines:
        # Two lines an image, the second of which may be empty.
        return sum(not line.startswith("#") for line in lines) // 2


def _is_model(folder: Path) -> bool:
    return any((folder / f"cameras.{suffix}").is_file() for suffix in ("bin", "txt"))


def read_model(folder: Path | str) -> ColmapModel:
    """Reads the model in `folder`, binary when both variants are there.

    Raises InputError for missing, truncated, damaged or inconsistent files.
    """
    folder = Path(folder)
    binary = (folder / "cameras.bin").is_file()
    variant, suffix = (colmap_binary, "bin") if binary else (colmap_text, "txt")
    for stem in ("cameras", "images"):
        if not (folder / f"{stem}.{suffix}").is_file():
            raise InputError(
                f"{folder} has no {stem}.{suffix}; give a COLMAP model with cameras, images and "
                "points3D files of one variant."
            )
    cameras = variant.read_cameras(folder / f"cameras.{suffix}")
    images = variant.read_images(folder / f"images.{suffix}")
    points_file = folder / f"points3D.{suffix}"
    points = variant.read_points(points_file) if points_file.is_file() else ColmapPoints.empty()
    model = ColmapModel(cameras, images, points)
    _check(model, folder)
    return model


def write_model(folder: Path | str, model: ColmapModel, *, binary: bool = True) -> None:
    """Writes the three files of `model` into `folder`, which is created if needed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    variant, suffix = (colmap_binary, "bin") if binary else (colmap_text, "txt")
    variant.write_cameras(folder / f"cameras.{suffix}", model.cameras)
    variant.write_images(folder / f"images.{suffix}", model.images)
    variant.write_points(folder / f"points3D.{suffix}", model.points)


def _check(model: ColmapModel, folder: Path) -> None:
    """Cross-references, finite poses and unique names."""
    seen: set[str] = set()
    for number, image in model.images.items():
        where = f"image {number} ({image.name}) of {folder}"
        if image.camera_id not in model.cameras:
            raise InputError(
                f"The {where} uses camera {image.camera_id}, which the cameras file lacks; "
                "export the model again."
            )
        pose = np.concatenate([image.quaternion, image.translation])
        length = np.abs(image.quaternion).max()
        # A quaternion is divided by its length, which must neither vanish nor overflow.
        if not np.isfinite(pose).all() or not 1e-12 < length < 1e12:
            raise InputError(f"The pose of {where} is not finite; register that image again.")
        if image.name in seen:
            raise InputError(
                f"The name {image.name} appears twice in the images file of {folder}; remove one "
                "of the two, since splits and files go by name."
            )
        seen.add(image.name)
