"""`read_volume`: any supported file or folder to a `Volume`, or a `SkipVolume` with the reason."""

from __future__ import annotations

import os
from pathlib import Path

from jepa3d.data.archives import is_archive, unpacked
from jepa3d.data.dicom import read_dicom, read_series
from jepa3d.data.formats import format_of, read_format
from jepa3d.data.images import TIFF_SUFFIXES, is_image, read_image_folder, read_tiff_stack
from jepa3d.data.plain import Spacing
from jepa3d.data.volume import DECODE_ERRORS, SkipReason, SkipVolume, Volume, quiet

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
# A volume of fewer frames is a line scan, not a raster.
MINIMUM_FRAMES = 2
# Largest share of frames of a compressed file that may be broken and is interpolated over.
CORRUPT_FRACTION = 0.15


@quiet
def read_volume(
    path: str | os.PathLike,
    *,
    minimum_frames: int = MINIMUM_FRAMES,
    corrupt_fraction: float = CORRUPT_FRACTION,
    spacing_mm: Spacing | None = None,
    part: str = "",
) -> Volume:
    """Reads one OCT volume.

    Args:
      path: a DICOM file, one of `jepa3d.data.formats`, a TIFF stack, a folder of B-scan images or
        with the single-frame DICOM files of one series, or an archive of one of these.
      minimum_frames: fewer frames are refused as `too_few_frames`.
      corrupt_fraction: largest share of undecodable frames that is interpolated over.
      spacing_mm: (pitch, axial, lateral) of images and arrays that carry none.
      part: which volume of a file that holds several: the StackID of a DICOM file, the series of
        an `.e2e`.

    Returns:
      A `Volume`; what was assumed or repaired is in its metadata.

    Raises:
      SkipVolume: for every file that gives no volume; never another exception.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise SkipVolume(SkipReason.MISSING_FILE, "the file does not exist")
        if path.is_dir():
            return _read_folder(path, minimum_frames, spacing_mm)
        if not path.is_file():
            raise SkipVolume(SkipReason.UNREADABLE_FILE, "neither a regular file nor a folder")
        if is_archive(path.name):
            with unpacked(path) as folder:
                return read_volume(
                    _only_content(folder),
                    minimum_frames=minimum_frames,
                    corrupt_fraction=corrupt_fraction,
                    spacing_mm=spacing_mm,
                    part=part,
                )
        if format_of(path.name) is not None:
            return read_format(path, minimum_frames, spacing_mm, part)
        if path.suffix.lower() in TIFF_SUFFIXES:
            return read_tiff_stack(path, minimum_frames, spacing_mm)
        return read_dicom(path, minimum_frames, corrupt_fraction, part)
    except DECODE_ERRORS as error:
        raise SkipVolume(SkipReason.UNREADABLE_FILE, f"cannot be read ({error!r})") from error


def _only_content(folder: Path) -> Path:
    """The file, or the folder of several, that a folder leads to."""
    content = list(folder.iterdir())
    while len(content) == 1 and content[0].is_dir():
        folder, content = content[0], list(content[0].iterdir())
    return content[0] if len(content) == 1 else folder


def _read_folder(folder: Path, minimum_frames: int, spacing_mm: Spacing | None) -> Volume:
    files = sorted(p for p in folder.iterdir() if p.is_file())
    dicom = [p for p in files if p.suffix.lower() in DICOM_SUFFIXES]
    if dicom:
        return read_series(dicom, minimum_frames)
    if any(is_image(path) for path in files):
        return read_image_folder(folder, minimum_frames, spacing_mm)
    raise SkipVolume(
        SkipReason.UNSUPPORTED_FORMAT, "the folder holds neither DICOM files nor B-scan images"
    )
