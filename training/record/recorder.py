"""The flight recorder: what `podvision replay` needs to run a suspicious step again.

During training it holds references only: the ids and positions of the last K batches and the host
batches of the last few steps. When a guard trips it writes `recorder/<step>/`:
  record.json      step, guard, reason, ids, losses, gradient norms, key data, where the state is
  batch.npz        the host batch; `batch-<process>.npz`, own rows only, with several processes
  record-<n>.json  ids of the rows of process n > 0
`record.json` is written last and in one piece: a recording is complete when it is there.

A run may trip at every step, so of the trips of one launch the first five are recorded, then
those whose number is a power of two. The count is the same on every process.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from etils import epath

from training import storage
from training.errors import InputError
from training.record.metrics import encode_json
from training.storage import PathLike

ALWAYS_RECORDED = 5
LIMIT_SENTENCE = (
    f"Of the trips of one launch the first {ALWAYS_RECORDED} are recorded, then those whose number "
    "is a power of two."
)


class Seen(NamedTuple):
    """One batch that was consumed."""

    step: int
    positions: Any  # [rows] int, positions in the example stream, or None
    ids: Any  # [rows] str or int, identities of the examples, or None


@dataclass(frozen=True)
class Evidence:
    """What is known about the suspicious step, as host values; everything is optional.

    Attributes:
      losses: "loss", the total, and "loss/<term>" -> value.
      gradient_norms: "grad_norm", of all, and "grad_norm/<group>" -> norm before clipping.
      key_data: uint32 words of the run's PRNG key, and `key_impl` its implementation's name.
      checkpoint: newest checkpoint before the step, from which a replay comes to it.
    """

    losses: Mapping[str, float] = field(default_factory=dict)
    gradient_norms: Mapping[str, Any] = field(default_factory=dict)
    key_data: Any = None
    key_impl: str = ""
    checkpoint: PathLike | None = None


@dataclass(frozen=True)
class Recording:
    """A recording read back: the record, the host batch (rows of all processes), its folder."""

    record: dict[str, Any]
    batch: dict[str, np.ndarray]
    folder: epath.Path


class Recorder:
    """Remembers batches cheaply and writes recordings; every process calls the same methods."""

    def __init__(
        self,
        workdir: PathLike,
        batches: int,
        held_batches: int = 2,
        process: int = 0,
        process_count: int = 1,
    ):
        """Creates an empty recorder.

        Args:
          workdir: the work folder.
          batches: how many batches' ids and positions are kept.
          held_batches: of how many steps the host batch itself is kept. Metrics are read one call
            late, so that twice the updates of a call covers the step that they belong to.
          process: index of this process.
          process_count: number of processes.
        """
        self.workdir = storage.as_path(workdir)
        self.trips = 0
        self._seen: deque[Seen] = deque(maxlen=batches)
        # By reference: batches are large, and most are never written.
        self._held: deque[tuple[int, Mapping[str, np.ndarray]]] = deque(maxlen=held_batches)
        self._process, self._process_count = process, process_count

    @property
    def records_next(self) -> bool:
        """Whether the next trip will be written."""
        return is_recorded(self.trips + 1)

    def remember(
        self,
        step: int,
        positions: Any = None,
        ids: Any = None,
        batch: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Before a step: host arrays only, kept by reference and not to be changed afterwards."""
        self._seen.append(Seen(step, positions, ids))
        if batch is not None:
            self._held.append((step, batch))

    def trip(
        self,
        step: int,
        guard: str,
        reason: str,
        evidence: Evidence,
        batch: Mapping[str, np.ndarray] | None = None,
    ) -> epath.Path | None:
        """Writes a recording; returns its folder, or None where the limit says no.

        Args:
          step: the suspicious step.
          guard: name of the guard.
          reason: its sentence.
          evidence: what is known about the step.
          batch: the host batch; None takes the one that was remembered, if still held.
        """
        self.trips += 1
        folder = self.workdir / "recorder" / str(step)
        if not is_recorded(self.trips):
            return None
        batch = dict(self._held).get(step) if batch is None else batch
        if batch is not None:
            _write_arrays(folder / self._name("batch", "npz"), batch)
        earlier = None if evidence.checkpoint is None else str(evidence.checkpoint)
        state = {"path": earlier, "kind": "earlier checkpoint" if earlier else "none"}
        record = {
            "process": self._process,
            "batches": [_plain(seen._asdict()) for seen in self._seen],
        }
        if self._process == 0:
            facts = {"step": step, "guard": guard, "reason": reason, "trip": self.trips}
            record = {
                **facts,
                "limit": LIMIT_SENTENCE,
                "process_count": self._process_count,
                "state": state,
                "key": {"data": _plain(evidence.key_data), "impl": evidence.key_impl},
                "losses": _plain(evidence.losses),
                "gradient_norms": _plain(evidence.gradient_norms),
                "batch": None if batch is None else _describe(batch),
                **record,
            }
        name = "record.json" if self._process == 0 else f"record-{self._process}.json"
        storage.replace_text(folder / name, encode_json(record, indent=1) + "\n")
        return folder

    def _name(self, stem: str, suffix: str) -> str:
        return (
            f"{stem}.{suffix}" if self._process_count == 1 else f"{stem}-{self._process}.{suffix}"
        )


def is_recorded(trip: int) -> bool:
    """Whether trip number `trip` (from 1) is written; see `LIMIT_SENTENCE`."""
    return trip <= ALWAYS_RECORDED or trip & (trip - 1) == 0


def recorded_steps(workdir: PathLike) -> list[int]:
    """Steps with a complete recording, ascending."""
    found = (storage.as_path(workdir) / "recorder").glob("*/record.json")
    return sorted(int(path.parent.name) for path in found if path.parent.name.isdigit())


def read_recording(workdir: PathLike, step: int) -> Recording:
    """Reads `recorder/<step>/`.

    The batch has the rows of all processes, in the order of the processes; it is empty when the
    recorder no longer held it (then the positions in the record tell how to read it again).

    Raises:
      InputError: there is no such recording, a file of it is missing or it cannot be read.
    """
    folder = storage.as_path(workdir) / "recorder" / str(step)
    path = folder / "record.json"
    if not path.exists():
        known = ", ".join(map(str, recorded_steps(workdir))) or "none"
        raise InputError(f"{path} does not exist; recorded steps in this work folder: {known}")
    try:
        record = json.loads(storage.read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON ({error}); the recording is lost") from error
    if record["batch"] is None:
        return Recording(record, {}, folder)
    count = record["process_count"]
    names = ["batch.npz"] if count == 1 else [f"batch-{index}.npz" for index in range(count)]
    parts = [_read_arrays(folder / name, record["batch"]) for name in names]
    batch = {
        key: parts[0][key] if count == 1 else np.concatenate([part[key] for part in parts])
        for key in parts[0]
    }
    return Recording(record, batch, folder)


def _describe(batch: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {
        name: {"shape": list(np.shape(value)), "dtype": np.asarray(value).dtype.name}
        for name, value in batch.items()
    }


def _write_arrays(path: epath.Path, batch: Mapping[str, np.ndarray]) -> None:
    """An .npz of plain arrays; bfloat16 and the like, unknown to NumPy's format, as raw integers.

    `np.savez` is not used: it takes the names as keyword arguments, and "file" is one of its own.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, value in batch.items():
            array = np.asarray(value)
            if hasattr(ml_dtypes, array.dtype.name):
                # The bits as they are; `record.json` keeps the name of the type.
                array = array.view(f"u{array.dtype.itemsize}")
            # zip64, because the size is not known before, and may be above 2 GiB.
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    storage.replace_bytes(path, content.getvalue())


def _read_arrays(path: epath.Path, described: Mapping[str, Any]) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}); the recording is incomplete") from error
    for name, facts in described.items():
        special = getattr(ml_dtypes, facts["dtype"], None)
        if special is not None:
            arrays[name] = arrays[name].view(special)
    return arrays


def _plain(value: Any) -> Any:
    """JSON-compatible copy of nested mappings, sequences, NumPy values and numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value
