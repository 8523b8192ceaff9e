"""Files that grow by lines, such as `metrics.jsonl`, on a disk and in a bucket.

On a disk each line is handed to the system at once; a kill in mid-write leaves a torn last line.

An object in a bucket cannot be appended to. There the file is a sequence of segments
`metrics.jsonl`, `metrics.1.jsonl`, `metrics.2.jsonl`, ...: the lines since the last full segment
are kept in memory and written whole, as one object, so that no line is ever torn. This was chosen
over rewriting the whole file (its cost grows with the square of the run) and over an object for
each write (a report would read ten thousand).

A segment is written at most every `FLUSH_SECONDS` (the service allows one write a second to an
object) and when `flush` is called, which a run does before a checkpoint: a kill loses only lines
that the resumed run writes again.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Protocol, TextIO

from etils import epath

from training import storage
from training.storage import PathLike

FLUSH_SECONDS = 10.0
SEGMENT_BYTES = 256 * 1024  # bounds what one write sends; a log line has about 1 KB


class LineFile(Protocol):
    """A file open for appending."""

    def write(self, line: str) -> None:
        """Appends a line, given without its line break."""
        ...

    def flush(self) -> None:
        """Returns once every line is in the file, and would survive a power cut."""
        ...

    def close(self) -> None:
        """Flushes; the file must not be used afterwards."""
        ...


class Nowhere:
    """A file for processes that have nothing to write."""

    def write(self, line: str) -> None:
        del line

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def open_lines(path: PathLike, clock: Callable[[], float] = time.monotonic) -> LineFile:
    """Opens a file for appending lines; made, with its folder, if missing.

    A torn last line is ended, so that the next line stands alone.
    """
    path = storage.as_path(path)
    return _BucketLines(path, clock) if storage.is_bucket(path) else _DiskLines(path)


def read_text(path: PathLike) -> str:
    """The whole text, of all segments; empty if there is no such file."""
    return "".join(storage.read_text(part) for part in _parts(storage.as_path(path)))


def filter_lines(path: PathLike, keep: Callable[[str], bool]) -> int:
    """Rewrites the file without the lines that `keep` refuses; returns how many those were.

    Empty lines go uncounted. Each part is replaced whole, the last one first: since the lines to
    go are those at the end, a stop in between leaves a file that the next call mends.
    """
    dropped = 0
    for part in reversed(_parts(storage.as_path(path))):
        text = storage.read_text(part)
        lines = [line for line in text.split("\n") if line.strip()]
        kept = [line for line in lines if keep(line)]
        dropped += len(lines) - len(kept)
        if len(kept) < len(lines):
            storage.replace_text(part, "".join(line + "\n" for line in kept))
    return dropped


def remove(path: PathLike) -> None:
    """Removes the file with all its segments; nothing happens if there is none."""
    for part in _parts(storage.as_path(path)):
        part.unlink(missing_ok=True)


class _DiskLines:
    def __init__(self, path: epath.Path):
        storage.make_folder(path.parent)
        torn = _is_torn(path)
        # buffering=1: whole lines reach the system, so that a kill of this process loses none.
        self._file: TextIO = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - kept
        if torn:
            self._file.write("\n")

    def write(self, line: str) -> None:
        self._file.write(line + "\n")

    def flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class _BucketLines:
    def __init__(self, path: epath.Path, clock: Callable[[], float]):
        self._path, self._clock = path, clock
        numbers = _numbers(path)
        self._number = max(numbers, default=0)
        text = storage.read_text(_segment(path, self._number)) if numbers else ""
        self._lines = [text] if text else []
        self._bytes = len(text.encode())
        self._dirty = False
        self._flushed_at = -float("inf")

    def write(self, line: str) -> None:
        self._lines.append(line + "\n")
        self._bytes += len(line.encode()) + 1
        self._dirty = True
        if self._clock() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        if not self._dirty:
            return
        storage.replace_text(_segment(self._path, self._number), "".join(self._lines))
        # Only now: lines of a write that failed are sent with the next.
        self._dirty = False
        self._flushed_at = self._clock()
        if self._bytes >= SEGMENT_BYTES:
            self._number, self._lines, self._bytes = self._number + 1, [], 0

    def close(self) -> None:
        self.flush()


def _segment(path: epath.Path, number: int) -> epath.Path:
    return path if number == 0 else path.with_name(f"{path.stem}.{number}{path.suffix}")


def _parts(path: epath.Path) -> list[epath.Path]:
    """The files that hold the lines, in order."""
    if storage.is_bucket(path):
        return [_segment(path, number) for number in _numbers(path)]
    return [path] if path.exists() else []


def _numbers(path: epath.Path) -> list[int]:
    """The numbers of the segments that exist, ascending."""
    pattern = re.compile(rf"{re.escape(path.stem)}\.(\d+){re.escape(path.suffix)}")
    names = {found.name for found in storage.list_folder(path.parent)}
    later = [int(match[1]) for name in names if (match := pattern.fullmatch(name))]
    return ([0] if path.name in names else []) + sorted(later)


def _is_torn(path: epath.Path) -> bool:
    if not path.exists():
        return False
    with open(path, "rb") as file:
        if file.seek(0, 2) == 0:
            return False
        file.seek(-1, 2)
        return file.read() != b"\n"
