"""Formats that libraries of the `[oct]` extra read: NIfTI, Heidelberg `.e2e`, and `.oct`.

Where a library is absent the file is skipped as `missing_decoder`, which says what to install; the
next run tries it again.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from jepa3d.data.plain import Spacing, plain_volume
from jepa3d.data.volume import DECODE_ERRORS, MAX_VOXELS, SkipReason, SkipVolume, Volume

_MICROMETERS, _MILLIMETERS = 1e-3, 1.0


def _errors() -> tuple[type[Exception], ...]:
    """What eyepy and oct-converter raise on damaged files: construct's errors, and Python's."""
    construct = _library("construct", "construct")
    return (*DECODE_ERRORS, construct.ConstructError)


def _library(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SkipVolume(
            SkipReason.MISSING_DECODER,
            f"{package} is not installed; pip install 'podvision[oct]' ({error})",
        ) from error


def read_nifti(path: Path, minimum_frames: int, spacing_mm: Spacing | None) -> Volume:
    """Reads a NIfTI file whose axes are [fast scan, depth, slow scan], as ITK writes B-scans.

    Raises:
      SkipVolume: without nibabel, or why it is unreadable.
    """
    nibabel = _library("nibabel", "nibabel")
    try:
        image = nibabel.load(path)
        shape = tuple(n for axis, n in enumerate(image.shape) if axis < 3 or n > 1)
        if len(shape) != 3 or 0 in shape:
            raise SkipVolume(SkipReason.UNSUPPORTED_PIXELS, f"an array of shape {image.shape}")
        if int(np.prod([int(n) for n in shape], dtype=object)) > MAX_VOXELS:
            raise SkipVolume(SkipReason.TOO_LARGE, f"the header declares {shape}")
        values = np.asanyarray(image.dataobj).reshape(shape)
        steps = [float(step) for step in image.header.get_zooms()[:3]]
        unit = image.header.get_xyzt_units()[0]
    except (*DECODE_ERRORS, nibabel.filebasedimages.ImageFileError) as error:
        raise SkipVolume(SkipReason.CORRUPT_FRAMES, f"cannot be read ({error})") from error
    if values.dtype.kind not in "uif":
        raise SkipVolume(SkipReason.UNSUPPORTED_PIXELS, f"numbers of type {values.dtype}")
    scale = _MICROMETERS if unit == "micron" else _MILLIMETERS
    # A header that was never filled in has steps of 1 (or 0) along each axis.
    known = any(step != 1.0 for step in steps) and all(step > 0 for step in steps)
    own = (steps[2] * scale, steps[1] * scale, steps[0] * scale) if known else None
    stack = values.transpose(2, 1, 0)
    notes = {"frame_order": "stored"}
    return plain_volume(stack, path, "nifti", minimum_frames, spacing_mm, notes, own)


def e2e_parts(path: Path) -> tuple[str, tuple[str, ...]]:
    """Participant and series of an `.e2e` file: ("", ()) where it cannot be read."""
    try:
        reader = _e2e(path)
        persons = {_e2e_person(patient) for patient in reader.patients}
    except SkipVolume:
        return "", ()
    return persons.pop() if len(persons) == 1 else "", _series_names(reader)


def read_e2e(path: Path, minimum_frames: int, spacing_mm: Spacing | None, part: str = "") -> Volume:
    """Reads one series of a Heidelberg `.e2e` file, by eyepy.

    The file does not say the lateral spacing and the pitch: typical ones of a Spectralis are taken.

    Raises:
      SkipVolume: without eyepy; for series that are no raster; `mixed_volumes` where there are
        several series and none is named.
    """
    reader = _e2e(path)
    names = _series_names(reader)
    if not names:
        raise SkipVolume(SkipReason.UNSUPPORTED_FORMAT, "eyepy finds no series of B-scans in it")
    if part not in names and (part or len(names) != 1):
        raise SkipVolume(SkipReason.MIXED_VOLUMES, f"the file holds the series {', '.join(names)}")
    try:
        with reader as opened:
            volume = opened.series[names.index(part) if part else 0].get_volume()
        stack, eye = np.asarray(volume.data), str(volume.meta["laterality"])
    except _errors() as error:
        if "scan pattern" in str(error):
            raise SkipVolume(SkipReason.SCAN_PATTERN, "a circle or radial scan") from error
        raise SkipVolume(SkipReason.CORRUPT_FRAMES, f"cannot be read ({error!r})") from error
    notes = {
        "frame_order": "stored",
        "scanner": "heidelberg_spectralis",
        "laterality": {"OD": "R", "OS": "L"}.get(eye, eye if eye in ("R", "L") else ""),
    }
    return plain_volume(stack, path, "e2e", minimum_frames, spacing_mm, notes)


def _e2e(path: Path) -> Any:
    library = _library("eyepy.io.he", "eyepy")
    try:
        return library.HeE2eReader(path)
    except _errors() as error:
        raise SkipVolume(SkipReason.BAD_HEADER, f"eyepy cannot open it ({error!r})") from error


def _series_names(reader: Any) -> tuple[str, ...]:
    return tuple(str(series.id) for series in reader.series)


def _e2e_person(patient: Any) -> str:
    folders = patient.folders.get(9) or []  # 9: personal data
    return str(folders[0].data.patient_id).strip("\0 ") if folders else str(patient.id)


def read_oct(path: Path, minimum_frames: int, spacing_mm: Spacing | None) -> Volume:
    """Reads a Bioptigen `.OCT`, or an Optovue `.oct` with its `.txt` beside it, by oct-converter.

    Raises:
      SkipVolume: without oct-converter; for a file of several volumes; why it is unreadable.
    """
    readers = _library("oct_converter.readers", "oct-converter")
    wrong_maker = _library("oct_converter.exceptions", "oct-converter").InvalidOCTReaderError
    optovue = path.with_suffix(".txt").exists()
    try:
        volumes = (readers.POCT if optovue else readers.BOCT)(path).read_oct_volume()
        stacks = [np.stack([np.asarray(frame) for frame in volume.volume]) for volume in volumes]
    except (*_errors(), wrong_maker) as error:
        raise SkipVolume(
            SkipReason.CORRUPT_FRAMES, f"oct-converter cannot read it ({error!r})"
        ) from error
    if len(stacks) != 1:
        raise SkipVolume(SkipReason.MIXED_VOLUMES, f"the file holds {len(stacks)} volumes")
    # Bioptigen's frames are [A-scan, depth].
    stack = stacks[0] if optovue else stacks[0].transpose(0, 2, 1)
    notes = {"frame_order": "stored", "scanner": "optovue" if optovue else "bioptigen_sdoct"}
    eye = str(volumes[0].laterality or "")
    if eye in ("R", "L"):
        notes["laterality"] = eye
    return plain_volume(stack, path, "oct", minimum_frames, spacing_mm, notes)
