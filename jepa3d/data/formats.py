"""Which reader an ending asks for, and what each format says of the person before it is read.

DICOM, images and folders are not here: see `reader`. Modules are imported when a file asks for
them, since some bring large libraries.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jepa3d.data.plain import Spacing
from jepa3d.data.volume import Volume


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
      module: in `jepa3d.data`.
      read: name of its function (path, minimum_frames, spacing_mm) -> Volume.
      participant: name of its function path -> patient number, "" without one.
      parts: name of its function path -> (patient number, names of its volumes), for files that
        hold several; its `read` then takes the name of one as a fourth argument.
    """

    module: str
    read: str
    participant: str = ""
    parts: str = ""

    def function(self, name: str) -> Callable:
        return getattr(importlib.import_module(f"jepa3d.data.{self.module}"), name)


_TOPCON = Format("topcon", "read_topcon", "participant_of_topcon")
_NIFTI = Format("optional_formats", "read_nifti")
_FORMATS = {
    ".vol": Format("heidelberg_vol", "read_vol", "participant_of_vol"),
    ".npy": Format("arrays", "read_array"),
    ".npz": Format("arrays", "read_array"),
    ".fda": _TOPCON,
    ".fds": _TOPCON,
    ".img": Format("zeiss_img", "read_zeiss_img", "participant_of_zeiss_img"),
    ".mat": Format("matlab", "read_matlab"),
    ".avi": Format("film", "read_film"),
    ".nii": _NIFTI,
    ".nii.gz": _NIFTI,
    ".e2e": Format("optional_formats", "read_e2e", parts="e2e_parts"),
    ".oct": Format("optional_formats", "read_oct"),
}


def format_of(name: str) -> Format | None:
    """The format that a file name's ending asks for."""
    lowered = name.lower()
    return next((known for end, known in _FORMATS.items() if lowered.endswith(end)), None)


def participant_of_file(path: Path) -> str:
    """The patient number that a file of these formats carries, "" without one."""
    known = format_of(path.name)
    return known.function(known.participant)(path) if known and known.participant else ""


def parts_of_file(path: Path) -> tuple[str, tuple[str, ...]]:
    """Patient number and names of the volumes of a file that can hold several, else ("", ())."""
    known = format_of(path.name)
    return known.function(known.parts)(path) if known and known.parts else ("", ())


def read_format(
    path: Path, minimum_frames: int, spacing_mm: Spacing | None, part: str = ""
) -> Volume:
    """Reads a file of these formats.

    Raises:
      SkipVolume: why it gives no volume.
    """
    known = format_of(path.name)
    assert known is not None
    read = known.function(known.read)
    if known.parts:
        return read(path, minimum_frames, spacing_mm, part)
    return read(path, minimum_frames, spacing_mm)
