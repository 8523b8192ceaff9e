"""Where the frames of a DICOM volume lie: their order, the scan pattern and the spacing.

Vocabulary: a frame's *position* is a point in millimeters (or, in localizer coordinates, in pixels
of the fundus image); its *direction* is the unit vector along its rows; the *normal* is the cross
product of row and column direction, along which the frames are stacked.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from jepa3d.data.scanners import pattern_from_name, protocol_spacing, scanner_spacing
from jepa3d.data.volume import DECODE_ERRORS, SPACING_GATES_MM, SkipReason, SkipVolume

# Frames whose directions differ by more than this are not a raster.
_PARALLEL_DEGREES = 5.0
# Lateral spacing of a raster is the same in each frame up to rounding of the tags.
_SPACING_VARIATION = 0.05
# Axial and lateral, of (0022,0035) and (0022,0037).
_IN_PLANE_RESOLUTION = ("DepthSpatialResolution", "AlongScanSpatialResolution")


@dataclass(frozen=True)
class FrameGeometry:
    """What the tags of one volume say about its frames, None where they say nothing.

    Attributes:
      positions_mm: [frame, 3] ImagePositionPatient.
      directions: [frame, 3] row direction (first triple of ImageOrientationPatient).
      normal: [3] stacking direction.
      localizer: [frame, 4] (row0, column0, row1, column1) of each B-scan in the fundus image.
      stack_index: [frame] InStackPositionNumber.
      in_plane_mm: [frame, 2] (axial, lateral) PixelSpacing; all rows equal when shared.
      in_plane_source: where `in_plane_mm` came from.
      between_slices_mm, thickness_mm, across_mm: SpacingBetweenSlices, SliceThickness,
        AcrossScanSpatialResolution; 0 where absent.
    """

    positions_mm: np.ndarray | None
    directions: np.ndarray | None
    normal: np.ndarray
    localizer: np.ndarray | None
    stack_index: np.ndarray | None
    in_plane_mm: np.ndarray | None
    in_plane_source: str
    between_slices_mm: float
    thickness_mm: float
    across_mm: float = 0.0

    def of_frames(self, chosen: np.ndarray) -> FrameGeometry:
        """The geometry of some of the frames, int indices [frame]."""
        names = ("positions_mm", "directions", "localizer", "stack_index", "in_plane_mm")
        arrays = {name: getattr(self, name) for name in names}
        # A shared value has one row, whatever the number of frames.
        picked = {
            name: array[chosen] if array is not None and len(array) > max(chosen) else array
            for name, array in arrays.items()
        }
        return dataclasses.replace(self, **picked)


def read_geometry(dataset: Dataset, frames: int) -> FrameGeometry:
    """Collects the geometry tags: shared functional groups, then per frame, then top level."""
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    per_frame = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    # Another number of groups cannot be matched to the frames.
    per_frame = per_frame if len(per_frame) == frames else []
    scopes = [shared, *per_frame[:1], dataset]
    orientation = _per_frame(per_frame, shared, dataset, "PlaneOrientationSequence", _orientation)
    in_plane, source, measures = _in_plane(shared, per_frame, dataset)
    return FrameGeometry(
        positions_mm=_per_frame(per_frame, None, None, "PlanePositionSequence", _position),
        directions=None if orientation is None else orientation[:, :3],
        normal=_normal(orientation),
        localizer=_localizer(dataset, per_frame, frames),
        stack_index=_per_frame(per_frame, None, None, "FrameContentSequence", _stack_index),
        in_plane_mm=in_plane,
        in_plane_source=source,
        between_slices_mm=_first_positive(measures, scopes, "SpacingBetweenSlices"),
        thickness_mm=_first_positive(measures, scopes, "SliceThickness"),
        across_mm=_resolution_mm(dataset, "AcrossScanSpatialResolution", 0),
    )


def stack_of_frame(dataset: Dataset) -> str:
    """StackID of a single-frame file, "" where absent."""
    group = _first(dataset, "PerFrameFunctionalGroupsSequence") or Dataset()
    return str((_first(group, "FrameContentSequence") or Dataset()).get("StackID") or "")


def stacks_of(dataset: Dataset, frames: int) -> dict[str, np.ndarray]:
    """The frames of each stack by StackID, int indices [frame]; {} where there is only one stack.

    An identifier of its own for each frame counts frames and tells no stacks apart.
    """
    per_frame = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    if len(per_frame) != frames:
        return {}
    contents = [_first(group, "FrameContentSequence") or Dataset() for group in per_frame]
    names = [str(content.get("StackID") or "") for content in contents]
    found = sorted(set(names))
    if len(found) in (1, frames):
        return {}
    return {name: np.flatnonzero([n == name for n in names]) for name in found}


def frame_order(geometry: FrameGeometry, frames: int) -> tuple[np.ndarray, str]:
    """Order in which the stored frames follow each other in space.

    Returns:
      int indices [frame] into the stored frames, and what decided.
    """
    if geometry.positions_mm is not None:
        along = geometry.positions_mm @ geometry.normal
        if np.ptp(along) == 0:  # a writer that stacks along another axis than the normal
            along = geometry.positions_mm[:, np.argmax(np.ptp(geometry.positions_mm, axis=0))]
        if np.ptp(along) > 0:
            return np.argsort(along, kind="stable"), "plane_position"
    if geometry.stack_index is not None and len(np.unique(geometry.stack_index)) == frames:
        return np.argsort(geometry.stack_index[:, 0], kind="stable"), "in_stack_position"
    if geometry.localizer is not None and len(geometry.localizer) == frames > 1:
        across = _across_lines(geometry.localizer)
        # Scanners run both up and down the fundus: the sense in which the frames are stored stays.
        sense = -1.0 if across @ (np.arange(frames) - (frames - 1) / 2) < 0 else 1.0
        return np.argsort(sense * across, kind="stable"), "localizer_coordinates"
    return np.arange(frames), "stored"


def check_raster(dataset: Dataset, geometry: FrameGeometry, protocol: str) -> None:
    """Refuses radial, circle, line and cross scans.

    Raises:
      SkipVolume: `scan_pattern`.
    """
    declared = pattern_from_name(protocol)
    if declared:
        raise SkipVolume(SkipReason.SCAN_PATTERN, f"{declared} (protocol {protocol!r})")
    location = _first(dataset, "OphthalmicFrameLocationSequence")
    orientation = str((location or Dataset()).get("OphthalmicImageOrientation") or "")
    if orientation.upper().startswith("NONLINEAR"):
        raise SkipVolume(SkipReason.SCAN_PATTERN, "circle scan (nonlinear image orientation)")
    directions = geometry.directions
    if geometry.localizer is not None:
        directions = geometry.localizer[:, 2:] - geometry.localizer[:, :2]
        if np.any(np.linalg.norm(directions, axis=1) == 0):
            raise SkipVolume(SkipReason.SCAN_PATTERN, "circle scan (scan ends where it starts)")
    if directions is not None and _spread_degrees(directions) > _PARALLEL_DEGREES:
        raise SkipVolume(SkipReason.SCAN_PATTERN, "radial scan: the B-scans are not parallel")
    if geometry.in_plane_mm is not None:
        low, high = geometry.in_plane_mm.min(0), geometry.in_plane_mm.max(0)
        if np.any(high > low * (1 + _SPACING_VARIATION)):
            raise SkipVolume(SkipReason.SCAN_PATTERN, "pixel spacing varies by frame: mixed scans")


def volume_spacing(
    geometry: FrameGeometry, scanner: str, protocol: str, shape: tuple[int, int, int]
) -> tuple[tuple[float, float, float], dict[str, str]]:
    """Spacing (pitch, axial, lateral) in mm and where pitch and in-plane values came from."""
    frames, _, columns = shape
    nominal = protocol_spacing(protocol, frames, columns)
    fallback, fallback_source = nominal or scanner_spacing(scanner), "protocol_table"
    # The gate of `SPACING_GATES_MM`: beyond it the number of frames does not fit the name.
    if nominal is None or not 0.005 <= nominal[0] <= 0.4:
        fallback, fallback_source = scanner_spacing(scanner), "scanner_default"
    if geometry.in_plane_mm is None:
        axial, lateral, in_plane_source = *fallback[1:], fallback_source
    else:
        axial, lateral = (float(v) for v in np.median(geometry.in_plane_mm, axis=0))
        in_plane_source = geometry.in_plane_source
    pitch, pitch_source = _pitch(geometry, scanner, frames, columns, lateral)
    if pitch <= 0:
        pitch, pitch_source = fallback[0], fallback_source
        if scanner == "zeiss_cirrus":  # every Cirrus cube of AI-READI covers 6 mm
            pitch, pitch_source = 6.0 / max(frames, 1), "cirrus_field"
    return (pitch, axial, lateral), {"in_plane": in_plane_source, "pitch": pitch_source}


def _pitch(
    geometry: FrameGeometry, scanner: str, frames: int, columns: int, lateral_mm: float
) -> tuple[float, str]:
    """Distance between neighboring B-scans, the most direct evidence first; 0 when none."""
    if geometry.localizer is not None:
        pitch = _localizer_pitch(geometry.localizer, columns * lateral_mm)
        if pitch > 0:
            return pitch, "localizer_coordinates"
    if geometry.positions_mm is not None and len(geometry.positions_mm) == frames > 1:
        order, _ = frame_order(geometry, frames)
        steps = np.linalg.norm(np.diff(geometry.positions_mm[order], axis=0), axis=1)
        if np.median(steps) > 0:
            return float(np.median(steps)), "plane_position"
    if geometry.between_slices_mm > 0:
        return geometry.between_slices_mm, "spacing_between_slices"
    # A converter of Cirrus data copies the lateral spacing into SliceThickness: 4x too small for
    # the 512 x 128 cube. The tag is believed only where it says something else.
    tags = (geometry.thickness_mm, "slice_thickness"), (geometry.across_mm, "opt_resolution")
    for value, source in tags:
        copied = scanner == "zeiss_cirrus" and abs(value - lateral_mm) <= 0.01 * lateral_mm
        if value > 0 and not copied:
            return value, source
    return 0.0, ""


def _localizer_pitch(lines: np.ndarray, length_mm: float) -> float:
    """Pitch from scan lines in fundus pixels: a line of known length gives mm per pixel."""
    along = lines[:, 2:] - lines[:, :2]
    length = float(np.median(np.linalg.norm(along, axis=1)))
    if length == 0 or len(lines) < 2:
        return 0.0
    # Neighbors in space, whatever the order in which the frames are stored.
    steps = np.diff(np.sort(_across_lines(lines)))
    return float(np.median(steps)) * length_mm / length


def _across_lines(lines: np.ndarray) -> np.ndarray:
    """[frame] place of each scan line, in fundus pixels, at right angles to the first line.

    Neighbors may also be shifted along the lines; that is no distance between them.
    """
    along = lines[0, 2:] - lines[0, :2]
    along = along / np.linalg.norm(along)
    centers = 0.5 * (lines[:, :2] + lines[:, 2:])
    return centers @ np.array([along[1], -along[0]])


def _spread_degrees(directions: np.ndarray) -> float:
    """Largest angle between a frame's direction, up to sign, and that of the first frame."""
    units = directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
    return float(np.degrees(np.arccos(np.clip(np.abs(units @ units[0]), 0, 1))).max())


def _normal(orientation: np.ndarray | None) -> np.ndarray:
    if orientation is None:
        return np.array([0.0, 0.0, 1.0])
    return np.cross(orientation[0, :3], orientation[0, 3:])


def _first(dataset: Dataset, name: str) -> Dataset | None:
    items = dataset.get(name) or []
    return items[0] if len(items) else None


def _numbers(value: Any, count: int) -> list[float] | None:
    """`count` finite numbers of a multi-valued tag, None when it holds anything else."""
    try:
        numbers = [float(v) for v in value]
    except DECODE_ERRORS:
        return None
    return numbers if len(numbers) == count and np.all(np.isfinite(numbers)) else None


def _position(item: Dataset) -> list[float] | None:
    return _numbers(item.get("ImagePositionPatient"), 3)


def _orientation(item: Dataset) -> list[float] | None:
    return _numbers(item.get("ImageOrientationPatient"), 6)


def _stack_index(item: Dataset) -> list[float] | None:
    return _numbers([item.get("InStackPositionNumber")], 1)


def _pixel_spacing(item: Dataset) -> list[float] | None:
    numbers = _numbers(item.get("PixelSpacing"), 2)
    return numbers if numbers and min(numbers) > 0 else None


def _per_frame(per_frame, shared, top, sequence, read) -> np.ndarray | None:
    """Values of a macro for each frame; a shared or top-level value is repeated."""
    rows = [read(_first(item, sequence) or Dataset()) for item in per_frame]
    if rows and all(row is not None for row in rows):
        return np.asarray(rows, float)
    for item in (shared and _first(shared, sequence), top):
        value = read(item) if item is not None else None
        if value is not None:
            return np.asarray([value] * max(len(per_frame), 1), float)
    return None


def _in_plane(
    shared: Dataset | None, per_frame: list[Dataset], top: Dataset
) -> tuple[np.ndarray | None, str, list[Dataset]]:
    """PixelSpacing by the search order, its source, and all PixelMeasures items found."""
    shared_measures = _first(shared, "PixelMeasuresSequence") if shared is not None else None
    frame_measures = [_first(item, "PixelMeasuresSequence") for item in per_frame]
    found = [item for item in (shared_measures, *frame_measures[:1]) if item is not None]
    value = _pixel_spacing(shared_measures) if shared_measures is not None else None
    if value:
        return np.asarray([value]), "shared_functional_groups", found
    rows = [_pixel_spacing(item) if item is not None else None for item in frame_measures]
    if rows and all(rows):
        return np.asarray(rows), "per_frame_functional_groups", found
    value = _pixel_spacing(top)
    if value:
        return np.asarray([value]), "top_level", found
    # The resolution of the scan stands in for the spacing of the pixels, which nothing else gives.
    tags = [_resolution_mm(top, name, axis) for axis, name in enumerate(_IN_PLANE_RESOLUTION, 1)]
    return (np.asarray([tags]), "opt_resolution", found) if all(tags) else (None, "", found)


def _resolution_mm(dataset: Dataset, name: str, axis: int) -> float:
    """A spatial resolution of the Ophthalmic Tomography module, which is in micrometers.

    0 where absent, or where no pixel can be so large or so small on that axis.
    """
    numbers = _numbers([dataset.get(name)], 1)
    value = numbers[0] / 1000.0 if numbers else 0.0
    low, high = SPACING_GATES_MM[axis]
    return value if low <= value <= high else 0.0


def _first_positive(measures: list[Dataset], scopes: list[Dataset | None], name: str) -> float:
    for item in (*measures, *(scope for scope in scopes if scope is not None)):
        numbers = _numbers([item.get(name)], 1)
        if numbers and numbers[0] > 0:
            return numbers[0]
    return 0.0


def _localizer(dataset: Dataset, per_frame: list[Dataset], frames: int) -> np.ndarray | None:
    """Scan lines in the fundus image, from one item per frame at top level or in each group."""
    items = list(dataset.get("OphthalmicFrameLocationSequence") or [])
    if len(items) != frames:
        items = [_first(item, "OphthalmicFrameLocationSequence") for item in per_frame]
    rows = [_numbers(item.get("ReferenceCoordinates"), 4) if item else None for item in items]
    if not rows or len(rows) != frames or any(row is None for row in rows):
        return None
    return np.asarray(rows, float)
