"""`VolumeSource`: prepared records by index, for the training stream."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from etils import epath

from jepa3d.data.decode import decode_record
from jepa3d.data.index import INDEX_NAME, JOURNAL_NAME, SETTINGS_NAME, Row, read_rows
from jepa3d.data.records import shard_path
from training import storage
from training.errors import InputError
from training.local_copy import local_copy
from training.storage import PathLike

_PREPARE_HINT = "run `podvision prepare jepa3d --input DIR --output DIR` first"


class VolumeSource:
    """Random access to the volumes of one split.

    Safe to use from several threads and to pickle: only paths and the index travel, files are
    opened on first use. Shards in a bucket are first copied to this machine (`local_copy`).

    Attributes:
      fingerprint: hash of everything that decides what index i holds; equal on every host.
      scanners: names; `scanner` of an example is the place in this tuple. The same in every split.
      participants: name of each example's participant, in order.
      index: all rows of the folder's index, skipped files included.
      rows: the index rows of the examples, in order.
      settings: how the folder was prepared, the JSON of `PrepareSettings`.
      shape, patch: voxels of a volume and of a token.
    """

    def __init__(
        self,
        folder: PathLike,
        split: str,
        shape: tuple[int, int, int] | None = None,
        only: tuple[str, ...] = (),
    ):
        """Opens a prepared folder.

        Args:
          folder: output of `prepare`, on a disk or in a bucket.
          split: "train", "eval" or "test".
          shape: the grid that the model expects; None takes the folder's.
          only: names of the scanners whose volumes are taken; empty takes all.

        Raises:
          InputError: no such folder, unfinished preparation, no volume in the split, other shape.
        """
        self.folder, self.split = storage.as_path(folder), split
        self.settings = settings = _read_settings(self.folder)
        self.shape = tuple(settings["shape"])
        self.patch = tuple(settings["patch"])
        if shape is not None and tuple(shape) != self.shape:
            raise InputError(
                f"{self.folder} holds volumes of {self.shape}, the model expects {tuple(shape)}; "
                "prepare again with that --shape or change the config"
            )
        self.index: list[Row] = _read_index(self.folder)
        kept = [r for r in self.index if r["status"] == "ok" and not r["part_of"]]
        self.scanners = tuple(sorted({row["scanner"] for row in kept}))
        unknown = sorted(set(only) - set(self.scanners))
        if unknown:
            raise InputError(
                f"{self.folder} has no volume of the scanner {unknown[0]!r}; "
                f"config.data.scanners can name {', '.join(self.scanners)}"
            )
        stored = sorted(
            (row for row in kept if row["split"] == split),
            key=lambda row: (row["shard"], row["position"]),
        )
        self._all = stored
        # Records are read by their place in the whole split, whatever `only` leaves out.
        self._places = [i for i, row in enumerate(stored) if not only or row["scanner"] in only]
        self.rows: list[Row] = [stored[i] for i in self._places]
        if not self.rows:
            found = sorted({row["split"] for row in kept}) or ["none"]
            raise InputError(
                f"{self.folder} has no volume in split {split!r} (it has {', '.join(found)})"
                f"{' of ' + ', '.join(only) if only else ''}; {_PREPARE_HINT}"
            )
        self.participants = [row["participant"] for row in self.rows]
        self.fingerprint = _fingerprint(self.rows, settings, split)
        self._records: ArrayRecordDataSource | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Example `index`.

        Returns:
          volume: uint8 [D, H, W], not to be written to; foreground: bool [token grid]; valid_box:
          int32 [3, 2], the half-open range of covered voxels of each axis; scanner: int32; mean,
          std: float32, of the covered voxels on the 0..1 scale; spacing_mm: float32 [3].

        Raises:
          InputError: the record cannot be read; names it and its file.
        """
        # Negative indices count from the end, and IndexError ends a plain `for` loop.
        index = range(len(self.rows))[index]
        row = self.rows[index]
        try:
            stored = self._open()[self._places[index]]
            record = decode_record(stored, self.shape, self.patch)
        except (RuntimeError, ValueError, LookupError, OSError) as error:
            shard = shard_path(self.folder, self.split, row["shard"])
            raise InputError(
                f"record {row['position']} of {shard} (from {row['path']}) is damaged "
                f"({str(error).splitlines()[0][:160]}); delete that file and prepare again"
            ) from error
        scanner = np.asarray(self.scanners.index(row["scanner"]), np.int32)
        return record | {"scanner": scanner}

    def identity(self, index: int) -> str:
        """The participant: what training and evaluation must not share."""
        return self.participants[index]

    def _open(self) -> ArrayRecordDataSource:
        """The shards of this split, opened once."""
        if self._records is None:
            shards = {shard_path(self.folder, self.split, row["shard"]).name for row in self._all}
            names = sorted(shards)
            here = local_copy(self.folder, names)
            records = ArrayRecordDataSource([str(here / name) for name in names])
            if len(records) != len(self._all):
                raise InputError(
                    f"{self.folder} has {len(records)} records and {len(self._all)} index rows in "
                    f"split {self.split!r}; prepare again into a new folder"
                )
            self._records = records
        return self._records

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_records": None}


def _read_settings(folder: epath.Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise InputError(f"data folder {folder} does not exist; {_PREPARE_HINT}")
    path = folder / SETTINGS_NAME
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is missing or damaged; {_PREPARE_HINT}") from error


def _read_index(folder: epath.Path) -> list[Row]:
    if (folder / JOURNAL_NAME).exists():
        raise InputError(
            f"the preparation of {folder} was interrupted; run the same prepare command again"
        )
    if not (folder / INDEX_NAME).exists():
        raise InputError(f"{folder} has no {INDEX_NAME}; {_PREPARE_HINT}")
    return read_rows(folder / INDEX_NAME)


def _fingerprint(rows: list[Row], settings: dict[str, Any], split: str) -> str:
    content = [[row["path"], row["sha256"], row["scanner"], row["participant"]] for row in rows]
    text = json.dumps([split, settings, content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
