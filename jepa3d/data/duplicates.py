"""One scan under two names: found by its SOPInstanceUID and by its decoded voxels.

Of a person, the first stays and the others become skips of the reason `duplicate`. A scan that
stands under two persons is kept for neither (`shared_volume`): it could be in train as one and in
eval as the other, and nobody can tell whose it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from jepa3d.data.index import Row
from jepa3d.data.volume import SkipReason


def voxel_hash(pixels: np.ndarray) -> str:
    """A hash of shape and voxels, uint8 [frame, row, column], whatever file they came from."""
    digest = hashlib.blake2b(str(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


@dataclass
class Register:
    """The scans that were met so far.

    Attributes:
      shared: path -> path of the same scan of another person, for records that must be taken back.
    """

    shared: dict[str, str] = field(default_factory=dict)
    _seen: dict[tuple[str, str], Row] = field(default_factory=dict)

    def add(self, rows: Iterable[Row]) -> None:
        """Remembers rows that stay: volumes, and scans that are known to be shared."""
        for row in rows:
            if row["status"] == "ok" or row["reason"] == SkipReason.SHARED_VOLUME:
                for key in _keys(row):
                    self._seen.setdefault(key, row)

    def judge(self, row: Row) -> Row:
        """The row of a volume as it is to be written: as it is, or a skip that names the other."""
        for key in _keys(row):
            first = self._seen.get(key)
            if first is not None:
                return self._skip(row, first, key[0])
        self.add([row])
        return row

    def _skip(self, row: Row, first: Row, evidence: str) -> Row:
        same_person = row["participant"] == first["participant"]
        if same_person and first["status"] == "ok":
            detail = f"the same {evidence} as {first['path']}, which is kept"
            return as_skip(row, SkipReason.DUPLICATE, detail, first["path"])
        if first["status"] == "ok":
            self.shared[first["path"]] = row["path"]
        return shared_skip(row, first["path"], first["participant"])


class Unjudged(Register):
    """Compares nothing: of a share, where the other scan may lie in another one."""

    def judge(self, row: Row) -> Row:
        return row


def shared_skip(row: Row, other: str, person: str) -> Row:
    """The row of a scan that also stands under `other`, a path of another person."""
    detail = f"the same scan as {other} of participant {person}; keep it under one person"
    return as_skip(row, SkipReason.SHARED_VOLUME, detail, other)


def as_skip(row: Row, reason: SkipReason, detail: str, other: str) -> Row:
    """`row` without a place in the records."""
    why = {"status": "skip", "reason": reason.value, "detail": detail, "duplicate_of": other}
    return row | why | {"split": None, "shard": None, "position": None}


def still_compared(row: Row, fresh: dict[str, Row | None]) -> bool:
    """Whether a row's comparison holds: its other scan is unchanged and was judged likewise."""
    if row["reason"] not in (SkipReason.DUPLICATE, SkipReason.SHARED_VOLUME):
        return True
    other = fresh.get(row["duplicate_of"])
    if other is None:
        return False
    if row["reason"] == SkipReason.DUPLICATE:
        return other["status"] == "ok"
    return other["reason"] == SkipReason.SHARED_VOLUME


def _keys(row: Row) -> list[tuple[str, str]]:
    pairs = ("SOPInstanceUID", row["sop_instance_uid"]), ("voxels", row["voxel_hash"])
    return [(name, value) for name, value in pairs if value]
