"""How a prepared volume is stored: ArrayRecord shards that tensorflow-datasets reads as they are.

A record is a serialized `tf.train.Example`; `features.json` and `dataset_info.json` beside the
shards make the folder a tensorflow-datasets dataset, read with
`tfds.builder_from_directory(folder).as_data_source(split)`. TensorFlow itself is needed neither to
write nor to read. One record per group keeps access random.
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from training import storage

DATASET_NAME = "oct_volumes"
VERSION = "1.0.0"
# Without the total number of shards in the name, a shard can be added without renaming any.
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}"
_WRITER_OPTIONS = "group_size:1,zstd:1"


def features(
    shape: tuple[int, int, int], patch: tuple[int, int, int]
) -> tfds.features.FeaturesDict:
    """The tensorflow-datasets features of one record."""
    grid = tuple(n // p for n, p in zip(shape, patch))
    raw = tfds.features.Encoding.BYTES
    return tfds.features.FeaturesDict(
        {
            "volume": tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding=raw),
            "foreground": tfds.features.Tensor(shape=grid, dtype=np.uint8, encoding=raw),
            "valid_box": tfds.features.Tensor(shape=(3, 2), dtype=np.int32),
            "spacing_mm": tfds.features.Tensor(shape=(3,), dtype=np.float32),
            "mean": tfds.features.Scalar(np.float32),
            "std": tfds.features.Scalar(np.float32),
            "scanner": tfds.features.Text(),
            "participant": tfds.features.Text(),
            "laterality": tfds.features.Text(),
            "path": tfds.features.Text(),
        }
    )


def shard_path(folder: epath.Path, split: str, number: int) -> epath.Path:
    """File of a shard, as `_TEMPLATE` names it."""
    return folder / f"{DATASET_NAME}-{split}.array_record-{number:05d}"


def parse_shard_name(path: epath.Path) -> tuple[str, int] | None:
    """(split, number) of a shard file, None for any other file."""
    stem, _, number = path.name.rpartition("-")
    prefix, suffix = f"{DATASET_NAME}-", ".array_record"
    if not (stem.startswith(prefix) and stem.endswith(suffix) and number.isdigit()):
        return None
    return stem[len(prefix) : -len(suffix)], int(number)


class ShardWriter:
    """Writes one shard under a temporary name; `commit` gives it its own name at once.

    The format is written by a library that knows disks only: of a bucket's shard the temporary
    file lies in this machine's temporary folder.
    """

    def __init__(self, path: epath.Path):
        self.path = path
        self.count = 0
        folder = tempfile.mkdtemp() if storage.is_bucket(path) else path.parent
        self._partial = os.path.join(folder, f".partial-{path.name}")
        self._writer = ArrayRecordWriter(self._partial, _WRITER_OPTIONS)

    def write(self, record: bytes) -> int:
        """Appends a record and returns its position in the shard."""
        self._writer.write(record)
        self.count += 1
        return self.count - 1

    def commit(self) -> None:
        """Closes the shard and moves it into place."""
        self._writer.close()
        storage.move_in(self._partial, self.path)
        if storage.is_bucket(self.path):
            os.rmdir(os.path.dirname(self._partial))


def write_json(path: epath.Path, value: Any) -> None:
    """Writes a JSON file at once."""
    storage.replace_text(path, json.dumps(value, indent=2) + "\n")


def write_dataset_info(
    folder: epath.Path,
    shape: tuple[int, int, int],
    patch: tuple[int, int, int],
    shard_lengths: dict[str, list[int]],
) -> None:
    """Writes `features.json` and `dataset_info.json`.

    Args:
      shard_lengths: for each split, number of records of shard 0, 1, 2, ...
    """
    features(shape, patch).save_config(str(folder))
    splits = [
        {
            "name": split,
            "filepathTemplate": _TEMPLATE,
            # JSON of protocol buffers has 64-bit integers as text.
            "shardLengths": [str(length) for length in lengths],
            "numBytes": str(
                sum(shard_path(folder, split, i).stat().length for i in range(len(lengths)))
            ),
        }
        for split, lengths in sorted(shard_lengths.items())
    ]
    info = {
        "name": DATASET_NAME,
        "version": VERSION,
        "description": "OCT volumes on one grid, prepared for V-JEPA3D.",
        "fileFormat": "array_record",
        "moduleName": "jepa3d.data.records",
        "splits": splits,
    }
    write_json(folder / "dataset_info.json", info)
