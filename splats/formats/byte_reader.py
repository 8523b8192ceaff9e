"""Bounded reading of little-endian records: a damaged file gives one sentence, never a crash.

Every read checks that the bytes are there first, so that a count of 10**12 in a damaged header
costs nothing: memory is allocated only for bytes that the file holds.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from training.errors import InputError


def read_whole(path: Path) -> bytes:
    """The bytes of `path`; InputError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error


class ByteReader:
    """A position in `data`; `source` (a file name) and the name of each record go into errors."""

    def __init__(self, data: bytes, source: str):
        self.data = data
        self.source = source
        self.position = 0

    @property
    def remaining(self) -> int:
        """Bytes from the position to the end."""
        return len(self.data) - self.position

    def fail(self, problem: str) -> InputError:
        """An InputError that names the file and the byte position; the caller raises it."""
        return InputError(
            f"{self.source} is damaged at byte {self.position}: {problem}; restore or export it "
            "again."
        )

    def need(self, count: int, record: str) -> None:
        """Raises InputError unless `count` bytes are left for `record`."""
        if count > self.remaining:
            raise self.fail(f"{record} needs {count} bytes and {self.remaining} are left")

    def take(self, layout: struct.Struct, record: str) -> tuple:
        """The fields of one packed `layout`."""
        self.need(layout.size, record)
        values = layout.unpack_from(self.data, self.position)
        self.position += layout.size
        return values

    def take_count(self, smallest: int, record: str) -> int:
        """A u64 count of records of at least `smallest` bytes each, checked against the file."""
        (count,) = self.take(_U64, f"the number of {record}")
        if count * smallest > self.remaining:
            # Back to the count, whose place the message names.
            self.position -= _U64.size
            raise self.fail(
                f"it claims {count} {record} of at least {smallest} bytes each and only "
                f"{self.remaining - _U64.size} bytes follow"
            )
        return count

    def take_array(self, dtype: np.dtype | str, count: int, record: str) -> np.ndarray:
        """`count` elements of `dtype`, read-only, without a copy."""
        kind = np.dtype(dtype)
        self.need(kind.itemsize * count, record)
        array = np.frombuffer(self.data, kind, count, self.position)
        self.position += array.nbytes
        return array

    def take_text(self, record: str) -> str:
        """A zero-terminated UTF-8 string."""
        end = self.data.find(b"\0", self.position)
        if end < 0:
            raise self.fail(f"{record} has no terminating zero")
        raw = self.data[self.position : end]
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fail(f"{record} is not UTF-8") from error
        self.position = end + 1
        return text

    def skip(self, count: int, record: str) -> None:
        """Moves on by `count` bytes."""
        self.need(count, record)
        self.position += count

    def finish(self, records: str) -> None:
        """Raises InputError for bytes after the last of `records`: their count is wrong."""
        if self.remaining:
            raise self.fail(f"{self.remaining} bytes follow the last of the {records} it counts")


_U64 = struct.Struct("<Q")
