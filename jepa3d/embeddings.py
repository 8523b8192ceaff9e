"""How embeddings are written: one table of all volumes, or a file for each.

A table (`.parquet` or `.npz`) has a row for each volume: the columns of `COLUMNS`, and the pooled
embeddings. A folder gets one `.npz` for each volume, with the tokens if they are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.errors import ConfigError, InputError

TABLES = (".parquet", ".npz")
# What a row of an index (`jepa3d.data.index`) says of a volume.
COLUMNS = ("path", "participant", "laterality", "scanner", "protocol", "sha256")
MEASURES = ("valid_fraction", "foreground_fraction")
_DESCRIBED = (*COLUMNS, "shape", "spacing_mm", "grid_spacing_mm", *MEASURES, "notes")


@dataclass(frozen=True)
class Embedding:
    """One volume's.

    Attributes:
      row: of an index.
      pooled: float32 [D], mean over foreground tokens.
      pooled_std: float32 [D], their standard deviation.
      tokens: float32 [N, D].
      foreground: bool [token grid].
    """

    row: dict[str, Any]
    pooled: np.ndarray
    pooled_std: np.ndarray
    tokens: np.ndarray
    foreground: np.ndarray

    def without_tokens(self) -> Embedding:
        """What a table keeps, so that no tokens pile up in memory."""
        none = np.zeros((0, self.tokens.shape[1]), np.float32)
        return Embedding(self.row, self.pooled, self.pooled_std, none, self.foreground)


def check_table(path: Path) -> None:
    """Refuses a table that could not be written in the end.

    Raises:
      ConfigError: Parquet without its library.
    """
    if path.suffix != ".parquet":
        return
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"--output {path} needs pyarrow (pip install pyarrow); or write a table .npz"
        ) from error


def write_table(path: Path, found: Sequence[Embedding], step: int) -> None:
    """Writes one row for each volume.

    Raises:
      InputError: the file cannot be written.
    """
    columns = {name: [str(one.row[name] or "") for one in found] for name in COLUMNS}
    measures = {name: [float(one.row[name]) for one in found] for name in MEASURES}
    pooled = np.stack([one.pooled for one in found])
    pooled_std = np.stack([one.pooled_std for one in found])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npz":
            arrays = {name: np.asarray(values) for name, values in (columns | measures).items()}
            arrays |= {"pooled": pooled, "pooled_std": pooled_std, "step": np.array(step)}
            np.savez(path, **arrays)  # type: ignore[arg-type]
            return
        import pyarrow
        import pyarrow.parquet

        vectors = {"pooled": list(pooled), "pooled_std": list(pooled_std)}
        table = pyarrow.table({**columns, **measures, **vectors})
        table = table.replace_schema_metadata({"step": str(step), "pooling": POOLING})
        pyarrow.parquet.write_table(table, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error})") from error


POOLING = "mean over foreground tokens of the target encoder, before normalization"


def write_file(path: Path, one: Embedding, step: int, with_tokens: bool) -> None:
    """Writes pooled and pooled_std [D], metadata (JSON text); and tokens [N, D], foreground [N].

    Raises:
      InputError: the file cannot be written.
    """
    described = {name: one.row[name] for name in _DESCRIBED}
    described |= {"step": step, "encoder": "target", "pooling": POOLING}
    described["token_grid"] = list(one.foreground.shape)
    arrays = {"pooled": one.pooled, "pooled_std": one.pooled_std}
    if with_tokens:
        arrays |= {"tokens": one.tokens, "foreground": one.foreground.reshape(-1)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, metadata=np.array(json.dumps(described)), **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error})") from error
