"""DICOM Ophthalmic Tomography to `Volume`: one multi-frame file, or a series of single frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from jepa3d.data import intensity
from jepa3d.data.dicom_file import DicomHeader, check_sop_class, read_dataset, read_header
from jepa3d.data.dicom_frames import read_frames
from jepa3d.data.geometry import (
    FrameGeometry,
    check_raster,
    frame_order,
    read_geometry,
    stack_of_frame,
    stacks_of,
    volume_spacing,
)
from jepa3d.data.image_groups import describe
from jepa3d.data.laterality import eye_of_name, eyes_of_dataset
from jepa3d.data.padding import padded_pixels
from jepa3d.data.scanners import (
    UNKNOWN_SCANNER,
    scanner_from_folder,
    scanner_from_path,
    scanner_name,
)
from jepa3d.data.volume import (
    DECODE_ERRORS,
    SkipReason,
    SkipVolume,
    Volume,
    check_content,
    check_spacing,
    quiet,
)


@dataclass(frozen=True)
class DicomIdentity:
    """Who and what a file belongs to, from its header alone.

    `stack` is that of a single frame; `stacks` are those of a file that holds several.
    """

    participant: str
    scanner: str
    series: str
    instance: int
    frames: int
    laterality: str
    stack: str
    stacks: tuple[str, ...]


@quiet
def read_identity(path: Path) -> DicomIdentity:
    """Reads participant, series and number of frames of an OPT file; no pixel is touched.

    Raises:
      SkipVolume: not DICOM, or not Ophthalmic Tomography.
    """
    dataset, stream, _ = read_dataset(path)
    stream.close()
    try:
        check_sop_class(dataset)
        frames = int(dataset.get("NumberOfFrames") or 0)
        return DicomIdentity(
            participant=str(dataset.get("PatientID") or ""),
            scanner=_scanner(dataset, path),
            series=str(dataset.get("SeriesInstanceUID") or ""),
            instance=int(dataset.get("InstanceNumber") or 0),
            frames=frames,
            laterality=_laterality(dataset, path),
            stack=stack_of_frame(dataset),
            stacks=tuple(stacks_of(dataset, frames)),
        )
    except DECODE_ERRORS as error:
        raise SkipVolume(SkipReason.BAD_HEADER, f"a header value is invalid ({error})") from error


def read_dicom(path: Path, minimum_frames: int, corrupt_fraction: float, stack: str = "") -> Volume:
    """Reads one multi-frame file, or one stack of it, which StackID names.

    Raises:
      SkipVolume: with the reason; `mixed_volumes` where there are several stacks and none is named.
    """
    header = read_header(path)
    try:
        return _volume_of(header, path, minimum_frames, corrupt_fraction, stack)
    except DECODE_ERRORS as error:
        raise SkipVolume(SkipReason.BAD_HEADER, f"a header value is invalid ({error})") from error
    finally:
        header.stream.close()


def _frames_of(dataset: Dataset, frames: int, stack: str) -> tuple[np.ndarray, FrameGeometry]:
    """Stored indices [frame] of the frames of one stack, and their geometry."""
    stacks = stacks_of(dataset, frames)
    if stack not in stacks and (stacks or stack):
        raise SkipVolume(
            SkipReason.MIXED_VOLUMES,
            f"the file holds {len(stacks)} stacks of frames, {describe([*stacks])}; "
            + (f"none is {stack}" if stack else "one stack is one volume"),
        )
    chosen = stacks[stack] if stacks else np.arange(frames)
    geometry = read_geometry(dataset, frames)
    return chosen, geometry.of_frames(chosen) if stacks else geometry


def _volume_of(
    header: DicomHeader, path: Path, minimum_frames: int, corrupt_fraction: float, stack: str
) -> Volume:
    dataset = header.dataset
    protocol = _protocol(dataset, path)
    chosen, geometry = _frames_of(dataset, header.frames, stack)
    check_raster(dataset, geometry, protocol)
    if header.frames == 1 and minimum_frames > 1:
        raise SkipVolume(
            SkipReason.TOO_FEW_FRAMES,
            "1 frame; single-frame files of one series are read together, as a folder",
        )
    stored, notes = read_frames(header, corrupt_fraction)
    if len(stored) != header.frames:
        # Per-frame groups are used only where there is one for each frame that is stored.
        chosen, geometry = _frames_of(dataset, len(stored), stack)
    slopes = _rescale_per_frame(dataset, len(stored))[chosen]
    if len(chosen) != len(stored):
        stored, notes["stack"] = stored[chosen], stack
    order, notes["frame_order"] = frame_order(geometry, len(stored))
    # Sorting copies the whole volume, so it is done only where it changes something.
    if not np.array_equal(order, np.arange(len(order))):
        stored = stored[order]
    pixels = _display(stored, dataset, slopes[order], notes)
    check_content(pixels, minimum_frames)
    metadata = _metadata(dataset, path, protocol) | notes
    spacing, sources = volume_spacing(geometry, metadata["scanner"], protocol, pixels.shape)
    check_spacing(spacing, f"in plane: {sources['in_plane']}, pitch: {sources['pitch']}")
    metadata["spacing_source"] = sources
    return Volume(np.ascontiguousarray(pixels), spacing, metadata)


def _display(
    stored: np.ndarray, dataset: Dataset, slopes: np.ndarray, notes: dict[str, Any]
) -> np.ndarray:
    padded = padded_pixels(dataset, stored)
    pixels, notes["intensity"] = intensity.to_uint8(_equalize_rescale(stored, slopes), padded)
    inverted = str(dataset.get("PhotometricInterpretation")) == "MONOCHROME1"
    # Two inversions cancel.
    if inverted != bool(slopes[0, 0] < 0):
        notes["inverted"] = True
        pixels = intensity.invert(pixels)
    if padded is not None:
        notes["padding_fraction"] = round(float(padded.mean()), 6)
        pixels = np.where(padded, np.uint8(0), pixels)
    return pixels


@quiet
def read_series(paths: list[Path], minimum_frames: int) -> Volume:
    """Reads single-frame files of one series as one volume, sorted by position in space.

    Raises:
      SkipVolume: of the first file that cannot be read, or when the files do not fit together.
    """
    slices = [_read_slice(path) for path in paths]
    owner = _one_owner([dataset for dataset, _, _ in slices], paths)
    shapes = {pixels.shape for _, pixels, _ in slices}
    if len(shapes) > 1:
        raise SkipVolume(SkipReason.MIXED_FRAME_SIZES, f"frames of sizes {sorted(shapes)}")
    order, positions, decided_by = _series_order([dataset for dataset, _, _ in slices])
    dataset = slices[order[0]][0]
    protocol = _protocol(dataset, paths[0])
    geometry = read_geometry(dataset, 1)
    check_raster(dataset, geometry, protocol)
    notes: dict[str, Any] = {"frame_order": decided_by, "files": len(paths)}
    stored = np.stack([slices[index][1] for index in order])
    slopes = np.concatenate([slices[index][2] for index in order])
    pixels = _display(stored, dataset, slopes, notes)
    check_content(pixels, minimum_frames)
    metadata = _metadata(dataset, paths[0], protocol) | owner | notes
    spacing, sources = volume_spacing(geometry, metadata["scanner"], protocol, pixels.shape)
    if positions is not None:
        steps = np.linalg.norm(np.diff(positions[order], axis=0), axis=1)
        spacing, sources["pitch"] = (float(np.median(steps)), *spacing[1:]), "plane_position"
    check_spacing(spacing, f"in plane: {sources['in_plane']}, pitch: {sources['pitch']}")
    metadata["spacing_source"] = sources
    return Volume(pixels, spacing, metadata)


def _one_owner(datasets: list[Dataset], paths: list[Path]) -> dict[str, str]:
    """Person and eye of the files of one volume; an absent tag says nothing.

    Raises:
      SkipVolume: `mixed_volumes` for files of several persons, eyes, series or stacks.
    """
    pairs = list(zip(datasets, paths))
    aspects = {
        "participant": [str(dataset.get("PatientID") or "") for dataset, _ in pairs],
        "laterality": [_laterality(dataset, path) for dataset, path in pairs],
        "SeriesInstanceUID": [str(dataset.get("SeriesInstanceUID") or "") for dataset, _ in pairs],
        "StackID": [stack_of_frame(dataset) for dataset, _ in pairs],
    }
    owner = {}
    for name, values in aspects.items():
        found = sorted(set(values) - {""})
        counts_frames = name == "StackID" and len(found) == len(paths)
        if len(found) > 1 and not counts_frames:
            raise SkipVolume(
                SkipReason.MIXED_VOLUMES,
                f"{len(paths)} files with several values of {name}: {describe(found)}; "
                "give each volume a folder of its own",
            )
        owner[name] = found[0] if found else ""
    return {name: owner[name] for name in ("participant", "laterality")}


def _read_slice(path: Path) -> tuple[Dataset, np.ndarray, np.ndarray]:
    header = read_header(path)
    try:
        if header.frames > 1:
            raise SkipVolume(
                SkipReason.MIXED_VOLUMES,
                f"{header.frames} frames in a folder of single frames: a volume of its own",
            )
        stored, _ = read_frames(header, 0.0)
        return header.dataset, stored[0], _rescale_per_frame(header.dataset, 1)
    except DECODE_ERRORS as error:
        raise SkipVolume(SkipReason.BAD_HEADER, f"{path.name}: {error}") from error
    except SkipVolume as skip:
        raise SkipVolume(skip.reason, f"{path.name}: {skip.detail}") from skip
    finally:
        header.stream.close()


def _series_order(datasets: list[Dataset]) -> tuple[list[int], np.ndarray | None, str]:
    """Order of single-frame files: by position along the normal, else by InstanceNumber."""
    geometries = [read_geometry(dataset, 1) for dataset in datasets]
    tags = [g.positions_mm[0] if g.positions_mm is not None else None for g in geometries]
    if all(tag is not None for tag in tags):
        positions = np.asarray(tags)
        along = positions @ geometries[0].normal
        # Equal positions, as of a tag that was copied from file to file, order nothing.
        if len(np.unique(along)) == len(along) > 1:
            return [int(i) for i in np.argsort(along)], positions, "plane_position"
    numbers = [int(dataset.get("InstanceNumber") or 0) for dataset in datasets]
    return [int(i) for i in np.argsort(numbers, kind="stable")], None, "instance_number"


def _rescale_per_frame(dataset: Dataset, frames: int) -> np.ndarray:
    """(slope, intercept) of each stored frame, [frame, 2]; (1, 0) where no rescale is given."""
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    groups = groups if len(groups) == frames else [Dataset()] * frames
    rows = []
    for group in groups:
        items = group.get("PixelValueTransformationSequence") or shared.get(
            "PixelValueTransformationSequence"
        )
        source = items[0] if items else dataset
        slope, intercept = source.get("RescaleSlope"), source.get("RescaleIntercept")
        rows.append((1.0 if slope is None else float(slope), float(intercept or 0.0)))
    table = np.asarray(rows)
    # A slope of 0 would make every frame constant.
    usable = np.isfinite(table).all(axis=1) & (table[:, 0] != 0)
    table[~usable] = (1.0, 0.0)
    return table


def _equalize_rescale(stored: np.ndarray, rescale: np.ndarray) -> np.ndarray:
    """Brings frames with rescales of their own onto the scale of the first frame.

    A rescale common to all frames leaves the words untouched: it is affine, and display values
    do not depend on it beyond its sign.
    """
    if np.all(rescale == rescale[0]):
        return stored
    slope, intercept = rescale[0]
    values = np.empty(stored.shape, np.float32)
    for index, (own_slope, own_intercept) in enumerate(rescale):
        values[index] = (stored[index] * own_slope + own_intercept - intercept) / slope
    return values


def _protocol(dataset: Dataset, path: Path) -> str:
    """The protocol name of the tag, else the file name without its UID."""
    name = str(dataset.get("ProtocolName") or "")
    return name or path.stem.split("_2.25")[0].split("_1.")[0]


def _metadata(dataset: Dataset, path: Path, protocol: str) -> dict[str, Any]:
    maker = str(dataset.get("Manufacturer") or "")
    model = str(dataset.get("ManufacturerModelName") or "")
    return {
        "format": "dicom",
        "scanner": _scanner(dataset, path),
        "laterality": _laterality(dataset, path),
        "participant": str(dataset.get("PatientID") or ""),
        "protocol": protocol,
        "manufacturer": maker,
        "model": model,
        "transfer_syntax": str(dataset.file_meta.get("TransferSyntaxUID", "")),
        "sop_instance_uid": str(dataset.get("SOPInstanceUID") or ""),
        "series_instance_uid": str(dataset.get("SeriesInstanceUID") or ""),
    }


def _scanner(dataset: Dataset, path: Path) -> str:
    """Scanner by the AI-READI folder, else by the maker's tags, else by words of the path."""
    maker = str(dataset.get("Manufacturer") or "")
    model = str(dataset.get("ManufacturerModelName") or "")
    scanner = scanner_from_folder(path.as_posix()) or scanner_name(maker, model)
    return scanner_from_path(path.as_posix()) if scanner == UNKNOWN_SCANNER else scanner


def _laterality(dataset: Dataset, path: Path) -> str:
    """ "R", "L" or "": the tags, then a word of the file name."""
    eyes = eyes_of_dataset(dataset)
    if len(eyes) > 1:
        raise SkipVolume(
            SkipReason.MIXED_VOLUMES,
            f"{path.name} names both eyes; write one eye into each file",
        )
    return eyes.pop() if eyes else eye_of_name(path.stem)
