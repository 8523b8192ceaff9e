"""Packed files: a `.zip` of volumes or B-scans, and a single file under gzip (`scan.dcm.gz`).

They are unpacked into a temporary folder, bounded in size, and what lies there is read as if it lay
in a folder of the archive's name. Archives inside archives are not opened.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jepa3d.data.volume import SkipReason, SkipVolume

ARCHIVE_SUFFIXES = (".zip", ".gz")
MAX_UNPACKED_BYTES = 2**33
_BLOCK = 2**20


def is_archive(name: str) -> bool:
    """Whether the name is that of a packed file; NIfTI is read packed as it is."""
    lowered = name.lower()
    return lowered.endswith(ARCHIVE_SUFFIXES) and not lowered.endswith(".nii.gz")


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A temporary folder with what `path` holds.

    Raises:
      SkipVolume: damaged, protected by a password, or larger than any set of volumes.
    """
    with tempfile.TemporaryDirectory(prefix="unpacked-") as folder:
        # The words of the path may name the scanner.
        above = [part for part in path.parent.parts[-2:] if part not in (path.anchor, "..")]
        target = Path(folder, *above, path.stem)
        target.mkdir(parents=True)
        try:
            if path.suffix.lower() == ".zip":
                _unzip(path, target)
            else:
                _gunzip(path, target / path.name[: -len(".gz")])
        except (OSError, EOFError, RuntimeError, ValueError, zlib.error, zipfile.BadZipFile) as e:
            raise SkipVolume(
                SkipReason.UNREADABLE_FILE, f"the archive cannot be unpacked ({e})"
            ) from e
        yield target


def _unzip(path: Path, target: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if not info.is_dir()]
        members = [info for info in members if not is_archive(info.filename)]
        _check_size(sum(info.file_size for info in members))
        for info in members:
            archive.extract(info, target)  # drops "..", drives and leading slashes


def _gunzip(path: Path, target: Path) -> None:
    if is_archive(target.name):
        raise ValueError("an archive inside an archive; unpack it")
    written = 0
    with gzip.open(path, "rb") as source, open(target, "wb") as file:
        while block := source.read(_BLOCK):
            written += len(block)
            _check_size(written)
            file.write(block)


def _check_size(size: int) -> None:
    if size > min(MAX_UNPACKED_BYTES, shutil.disk_usage(tempfile.gettempdir()).free):
        raise SkipVolume(
            SkipReason.TOO_LARGE,
            f"over {size / 2**30:.1f} GiB unpacked, more than is unpacked here; unpack it",
        )
