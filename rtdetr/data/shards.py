"""Image files in ArrayRecord shards, on a disk or in a bucket: one file a record, as it is."""

from __future__ import annotations

import os
import tempfile

from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from rtdetr.data.prepared import shard_name
from training import storage

# Access stays random with one record a group; JPEG does not compress further.
_OPTIONS = "group_size:1,uncompressed"


class ShardWriter:
    """Writes shard after shard; each appears under its name when it is whole.

    The format is written by a library that knows disks only: of a bucket's shard the temporary
    file lies in this machine's temporary folder.
    """

    def __init__(self, folder: epath.Path, records: int):
        """`records`: of each shard."""
        self._folder, self._records = storage.make_folder(folder), records
        self._shards, self._count = 0, 0
        self._writer: ArrayRecordWriter | None = None
        self._partial = ""

    def write(self, record: bytes) -> None:
        """Appends a record."""
        self._writer = writer = self._writer or self._next()
        writer.write(record)
        self._count += 1
        if self._count == self._records:
            self._commit()

    def close(self) -> int:
        """Ends the last shard; returns how many there are."""
        self._commit()
        return self._shards

    def _next(self) -> ArrayRecordWriter:
        place = tempfile.mkdtemp() if storage.is_bucket(self._folder) else str(self._folder)
        self._partial = os.path.join(place, f".partial-{shard_name(self._shards)}")
        return ArrayRecordWriter(self._partial, _OPTIONS)

    def _commit(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        storage.move_in(self._partial, self._folder / shard_name(self._shards))
        if storage.is_bucket(self._folder):
            os.rmdir(os.path.dirname(self._partial))
        self._writer, self._count = None, 0
        self._shards += 1
