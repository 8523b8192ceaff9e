"""`read_volume`: any supported file or folder to a `Volume`, or a `SkipVolume` with the reason."""

from __future__ import annotations

import os
from pathlib import Path

from jepa3d.data.arrays import read_array
from jepa3d.data.dicom import read_dicom, read_series
from jepa3d.data.heidelberg_vol import read_vol
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
      path: a DICOM file, a `.vol`, `.npy` or `.npz` file, a TIFF stack, a folder of B-scan images,
        or a folder with the single-frame DICOM files of one series.
      minimum_frames: fewer frames are refused as `too_few_frames`.
      corrupt_fraction: largest share of undecodable frames that is interpolated over.
      spacing_mm: (pitch, axial, lateral) of images and arrays that carry none.
      part: which volume of a file that holds several: the StackID of a DICOM file.

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
        suffix = path.suffix.lower()
        if suffix == ".vol":
            return read_vol(path, minimum_frames)
        if suffix in (".npy", ".npz"):
            return read_array(path, minimum_frames, spacing_mm)
        if suffix in TIFF_SUFFIXES:
            return read_tiff_stack(path, minimum_frames, spacing_mm)
        return read_dicom(path, minimum_frames, corrupt_fraction, part)
    except DECODE_ERRORS as error:
        raise SkipVolume(SkipReason.UNREADABLE_FILE, f"cannot be read ({error!r})") from error


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
