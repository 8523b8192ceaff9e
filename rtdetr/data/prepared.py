"""A prepared data set on a disk or in a bucket: image files in shards, objects in one table.

`dataset.json` (class table, splits, where it came from) is written last, so that a folder without
it is an interrupted preparation. `<split>/objects.npz` holds everything but the pixels;
`<split>/images-00000.array_record`, … hold the files as they were given.
"""

from __future__ import annotations

import hashlib
import io
import json
from functools import cached_property
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from etils import epath

from rtdetr.boxes import xywh_px
from rtdetr.data.dataset import ClassTable, Objects
from training import storage
from training.errors import InputError
from training.local_copy import local_copy
from training.storage import PathLike

INDEX, OBJECTS, VERSION = "dataset.json", "objects.npz", 1
_PREPARE = "run `podvision prepare rtdetr --input DIR --output DIR`"


def shard_name(number: int) -> str:
    """File of a shard of images."""
    return f"images-{number:05d}.array_record"


def read_index(folder: PathLike) -> dict[str, Any]:
    """`dataset.json`.

    Raises:
      InputError: no such folder, an interrupted preparation, or one of another version.
    """
    root = storage.as_path(folder)
    if not str(folder):
        raise InputError(f"config.data.folder is empty; {_PREPARE} and name its output")
    path = root / INDEX
    if not path.exists():
        raise InputError(
            f"{folder} is no prepared data set ({INDEX} is missing); {_PREPARE}, again if it was "
            "interrupted"
        )
    try:
        index = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged; {_PREPARE} into a new folder") from error
    if index.get("version") != VERSION:
        raise InputError(f"{path} has the version {index.get('version')}; {_PREPARE} again")
    return index


def open_classes(folder: PathLike) -> ClassTable:
    """The class table of a prepared folder; raises as `read_index`."""
    classes = read_index(folder)["classes"]
    return ClassTable(
        tuple(row["name"] for row in classes), tuple(int(row["source_id"]) for row in classes)
    )


def open_split(folder: PathLike, split: str) -> PreparedDataset:
    """One split of a prepared folder.

    Raises:
      InputError: as `read_index`, or there is no such split.
    """
    index = read_index(folder)
    if split not in index["splits"]:
        raise InputError(
            f"{folder} has no split {split!r}; it has {', '.join(sorted(index['splits']))} "
            "(config.data.train_split, config.data.eval_split)"
        )
    return PreparedDataset(storage.absolute(folder), split, index)


class PreparedDataset:
    """A `rtdetr.data.dataset.Dataset`; files are opened on first use, by each process for itself.

    Attributes:
      classes: the class table.
      fingerprint: of the files, the objects and the class table.
    """

    def __init__(self, folder: epath.Path, split: str, index: dict[str, Any]):
        self.folder, self.split = folder, split
        self._facts = index["splits"][split]
        self.classes = ClassTable(
            tuple(row["name"] for row in index["classes"]),
            tuple(int(row["source_id"]) for row in index["classes"]),
        )
        self.fingerprint: str = self._facts["fingerprint"]

    def __len__(self) -> int:
        return self._facts["images"]

    def encoded(self, index: int) -> bytes:
        """The image file.

        Raises:
          InputError: its record is damaged.
        """
        try:
            return self._records[index]
        except (RuntimeError, ValueError, LookupError, OSError) as error:
            raise InputError(
                f"the record of {self.name(index)} in {self.folder / self.split} is damaged "
                f"({str(error).splitlines()[0][:120]}); prepare again into a new folder"
            ) from error

    def objects(self, index: int) -> Objects:
        table = self._table
        part = slice(int(table["starts"][index]), int(table["starts"][index + 1]))
        return Objects(
            xywh_px(table["boxes"][part], table["sizes"][index]),
            table["labels"][part],
            table["crowd"][part],
            table["areas"][part],
            table["ids"][part],
        )

    def size(self, index: int) -> tuple[int, int]:
        height, width = self._table["sizes"][index].tolist()
        return height, width

    def image_id(self, index: int) -> int:
        return int(self._table["image_ids"][index])

    def name(self, index: int) -> str:
        return str(self._table["names"][index])

    def digest(self, index: int) -> str:
        return self._table["digests"][index].tobytes().hex()

    @cached_property
    def _table(self) -> dict[str, np.ndarray]:
        path = self.folder / self.split / OBJECTS
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} is missing or damaged; {_PREPARE} again") from error

    @cached_property
    def _records(self) -> Any:
        names = [shard_name(number) for number in range(self._facts["shards"])]
        place = local_copy(self.folder / self.split, names)
        return ArrayRecordDataSource([str(place / name) for name in names])

    def __getstate__(self) -> dict[str, Any]:
        # Open files and a table of megabytes do not travel to reader processes.
        return {k: v for k, v in self.__dict__.items() if k not in ("_records", "_table")}


def table_digest(table: dict[str, np.ndarray], classes: ClassTable) -> str:
    """The fingerprint of a split."""
    digest = hashlib.sha256(json.dumps([classes.names, classes.source_ids]).encode())
    for name in sorted(table):
        digest.update(f"{name}{table[name].dtype.str}{table[name].shape}".encode())
        digest.update(np.ascontiguousarray(table[name]).tobytes())
    return digest.hexdigest()
