"""One input to one record: what a worker process does. Everything here can be pickled."""

from __future__ import annotations

import functools
import hashlib
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jepa3d.config import PrepareSettings
from jepa3d.data.archives import is_archive, unpacked
from jepa3d.data.dicom import read_series
from jepa3d.data.duplicates import voxel_hash
from jepa3d.data.images import image_files, is_image, read_images
from jepa3d.data.index import ROW_DEFAULTS, Row
from jepa3d.data.inventory import InputItem, inside_archive
from jepa3d.data.laterality import eye_of_name
from jepa3d.data.reader import read_volume
from jepa3d.data.records import features
from jepa3d.data.resample import GridVolume, to_grid
from jepa3d.data.volume import DECODE_ERRORS, SkipReason, SkipVolume, Volume


@dataclass(frozen=True)
class Task:
    """One input with all that a worker needs."""

    root: Path
    item: InputItem
    split: str
    settings: PrepareSettings


@dataclass(frozen=True)
class Outcome:
    """Rows of the index (one per input file) and the serialized record, None for a skip."""

    rows: list[Row]
    record: bytes | None


def input_files(root: Path, item: InputItem) -> list[Path]:
    """The files that an item is made of."""
    if item.members:
        return [root / member for member in item.members]
    path = root / item.file
    return image_files(path) if path.is_dir() else [path]


def identity_of(root: Path, item: InputItem) -> dict[str, Any]:
    """Size and latest change of an item's files: cheap evidence that nothing changed."""
    stats = [path.stat() for path in input_files(root, item) if path.is_file()]
    return {
        "bytes": sum(stat.st_size for stat in stats),
        "modified_ns": max((stat.st_mtime_ns for stat in stats), default=0),
    }


def content_hash(root: Path, item: InputItem) -> str:
    """SHA-256 over the contents of an item's files, "" when they cannot be read."""
    digest = hashlib.sha256()
    try:
        for path in input_files(root, item):
            with open(path, "rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()


def convert(task: Task) -> Outcome:
    """Reads, resamples and serializes one input; a `SkipVolume` becomes a row with its reason."""
    base = base_row(task.root, task.item, task.split)
    # Of skipped inputs as well: a later run compares it to see whether to try again.
    base["sha256"] = content_hash(task.root, task.item)
    try:
        volume = _read(task)
        base |= _source_fields(volume, base)
        grid = to_grid(
            _oriented(volume, task.settings),
            volume.spacing_mm,
            shape=task.settings.shape,
            patch=task.settings.patch,
            window_mm=task.settings.window_mm if task.settings.mode == "window" else None,
        )
        _check_coverage(grid, task.settings)
    except SkipVolume as skip:
        return skipped(task, skip.reason, skip.detail, base)
    except DECODE_ERRORS as error:
        return skipped(task, SkipReason.UNREADABLE_FILE, f"cannot be read ({error!r})", base)
    row = base | _grid_fields(grid) | {"status": "ok"}
    return Outcome(_with_members(row, task.item), _serialize(grid, row, task.settings))


def skipped(task: Task, reason: SkipReason, detail: str, base: Row | None = None) -> Outcome:
    """The outcome of an input that gave no volume."""
    row = base or base_row(task.root, task.item, task.split)
    row = row | {"status": "skip", "reason": reason.value, "detail": detail, "split": None}
    return Outcome(_with_members(row, task.item), None)


def base_row(root: Path, item: InputItem, split: str) -> Row:
    """The row of an item before anything was read."""
    known = {"path": item.path, "scanner": item.scanner, "participant": item.participant}
    return ROW_DEFAULTS | known | {"split": split} | identity_of(root, item)


def end_when_hung(seconds: int) -> None:
    """Lets the operating system end this process after `seconds`: a decoder may never return."""
    # The default action: a handler of Python would wait for the native decoder to return.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)


def convert_in_worker(task: Task) -> Outcome:
    """`convert` under a time limit, for a process of its own."""
    end_when_hung(task.settings.seconds_per_volume)
    try:
        return convert(task)
    finally:
        signal.alarm(0)


def _read(task: Task) -> Volume:
    settings, path = task.settings, task.root / task.item.file
    if is_archive(path.name) and path.is_file():
        with unpacked(path) as folder:
            inside = inside_archive(folder, task.item, settings)
            volume = _read(Task(folder, inside, task.split, settings))
        eye = volume.metadata["laterality"] or eye_of_name(path.stem)
        return replace(volume, metadata=volume.metadata | {"laterality": eye})
    if task.item.members:
        files = [task.root / member for member in task.item.members]
        if is_image(files[0]):
            spacing = settings.image_spacing_mm
            return read_images(files, files[0], settings.minimum_frames, spacing)
        return read_series(files, settings.minimum_frames)
    return read_volume(
        path,
        part=task.item.part,
        minimum_frames=settings.minimum_frames,
        corrupt_fraction=settings.corrupt_fraction,
        spacing_mm=settings.image_spacing_mm,
    )


def _oriented(volume: Volume, settings: PrepareSettings) -> np.ndarray:
    mirror = settings.flip_left_eyes and volume.metadata["laterality"] == "L"
    return volume.pixels[:, :, ::-1] if mirror else volume.pixels


def _check_coverage(grid: GridVolume, settings: PrepareSettings) -> None:
    if grid.valid_fraction < settings.minimum_valid_fraction:
        raise SkipVolume(
            SkipReason.TOO_FEW_FRAMES,
            f"the scan covers {grid.valid_fraction:.1%} of the window, "
            f"at least {settings.minimum_valid_fraction:.1%} is asked for",
        )


_NOTE_KEYS = (
    "spacing_source",
    "frame_order",
    "intensity",
    "inverted",
    "padding_fraction",
    "frame_count",
    "interpolated_frames",
    "transfer_syntax_mismatch",
    "stack",
    "variable",
    "images_left_out",
    "files",
)


def _source_fields(volume: Volume, base: Row) -> Row:
    data = volume.metadata
    unknown = base["scanner"] == "unknown"
    return {
        # The manifest or folder is believed before the tags of the file.
        "scanner": data["scanner"] if unknown else base["scanner"],
        "laterality": data["laterality"],
        "protocol": data["protocol"],
        "shape": list(volume.pixels.shape),
        "spacing_mm": [float(value) for value in volume.spacing_mm],
        "voxel_hash": voxel_hash(volume.pixels),
        "sop_instance_uid": _instance(data),
        "notes": {key: data[key] for key in _NOTE_KEYS if key in data},
    }


def _instance(data: dict[str, Any]) -> str:
    """SOPInstanceUID; the stacks of one file share it, so that a stack's name goes with it."""
    uid, part = data.get("sop_instance_uid", ""), data.get("stack", "")
    return f"{uid}#{part}" if uid and part else uid


def _grid_fields(grid: GridVolume) -> Row:
    return {
        "grid_spacing_mm": list(grid.spacing_mm),
        "valid_fraction": round(grid.valid_fraction, 6),
        "foreground_fraction": round(float(grid.foreground.mean()), 6),
        "retina_row": round(grid.retina_row, 2),
        "mean": grid.mean,
        "std": grid.std,
    }


def _with_members(row: Row, item: InputItem) -> list[Row]:
    """The item's row, followed by one row for each further file of its series."""
    others = [row | {"path": path, "part_of": item.path} for path in item.members[1:]]
    return [row, *others]


@functools.cache
def _features(shape: tuple, patch: tuple):
    return features(shape, patch)


def _serialize(grid: GridVolume, row: Row, settings: PrepareSettings) -> bytes:
    return _features(settings.shape, settings.patch).serialize_example(
        {
            "volume": grid.volume,
            "foreground": grid.foreground.astype(np.uint8),
            "valid_box": grid.valid_box,
            "spacing_mm": np.asarray(grid.spacing_mm, np.float32),
            "mean": np.float32(grid.mean),
            "std": np.float32(grid.std),
            "scanner": row["scanner"],
            "participant": row["participant"],
            "laterality": row["laterality"],
            "path": row["path"],
        }
    )
