"""COLMAP sparse models: what they hold, where they lie, reading and writing either variant.

A model is three files, `cameras`, `images` and `points3D`, binary or text. The `rigs` and `frames`
files that COLMAP 3.12 added repeat what `images` says and are ignored.
Poses are world to camera: `x_camera = R(quaternion) x_world + translation`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from splats.data.camera_models import Camera
from training.errors import InputError


@dataclass(frozen=True)
class ColmapImage:
    """One registered image.

    `quaternion` [4] float64, wxyz, world to camera; `translation` [3] float64, world units;
    `keypoints` [M,2] float64 pixels; `point_ids` [M] int64, -1 where untriangulated.
    """

    name: str
    camera_id: int
    quaternion: np.ndarray
    translation: np.ndarray
    keypoints: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    point_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True)
class ColmapPoints:
    """The sparse points.

    `ids` [N] uint64; `positions` [N,3] float64, world units; `colors` [N,3] uint8; `errors` [N]
    float64, pixels; `tracks` [sum of lengths,2] int32 (image id, keypoint index), cut by
    `track_lengths` [N].
    """

    ids: np.ndarray
    positions: np.ndarray
    colors: np.ndarray
    errors: np.ndarray
    track_lengths: np.ndarray
    tracks: np.ndarray

    @staticmethod
    def empty() -> ColmapPoints:
        """No points at all."""
        return ColmapPoints.without_tracks(np.zeros((0, 3)), np.zeros((0, 3), np.uint8))

    @staticmethod
    def without_tracks(positions: np.ndarray, colors: np.ndarray) -> ColmapPoints:
        """Points numbered from 1 that no image observes."""
        count = len(positions)
        return ColmapPoints(
            np.arange(1, count + 1, dtype=np.uint64),
            np.asarray(positions, np.float64),
            np.asarray(colors, np.uint8),
            np.zeros(count),
            np.zeros(count, np.int64),
            np.zeros((0, 2), np.int32),
        )


@dataclass(frozen=True)
class ColmapModel:
    """`cameras` and `images` by their COLMAP number, in file order, and the points."""

    cameras: dict[int, Camera]
    images: dict[int, ColmapImage]
    points: ColmapPoints


def find_model(scene: Path) -> Path | None:
    """The folder of the sparse model that belongs to `scene`, or None."""
    for relative in ("sparse/0", "sparse", "colmap/sparse/0", "."):
        folder = scene / relative
        if any((folder / f"cameras.{suffix}").is_file() for suffix in ("bin", "txt")):
            return folder
    return None


def read_model(folder: Path | str) -> ColmapModel:
    """Reads the model in `folder`, binary when both variants are there.

    Raises InputError for missing, truncated, damaged or inconsistent files.
    """
    from splats.data import colmap_binary, colmap_text

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
    from splats.data import colmap_binary, colmap_text

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
        if not np.isfinite(pose).all() or not 1e-12 < length < 1e12:
            raise InputError(f"The pose of {where} is not finite; register that image again.")
        if image.name in seen:
            raise InputError(
                f"The name {image.name} appears twice in the images file of {folder}; remove one "
                "of the two, since splits and files go by name."
            )
        seen.add(image.name)
