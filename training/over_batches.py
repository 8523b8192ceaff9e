"""Every example of a source once, in batches, for evaluation: `over_batches`.

A pool reads this host's rows of the next batches while the devices work on one. What the function
makes of a batch comes back in three ways, and nothing that is not asked for leaves its device:

* `sums`: added over all batches, the same on every host;
* `rows`: a row for each example, gathered on every host in the order of the examples;
* `local`: a row for each example that stays on its device; its host looks at it with `examine`.

The last batch is filled up with copies of the last example. Their weight is 0, their rows are
dropped, and `examine` never sees them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Generator, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from training import distributed
from training.config import MeshConfig
from training.errors import InputError
from training.loss import Batch
from training.mesh import Layout, batch_shards, make_mesh
from training.reading import ReadAhead, Readers, run_ahead, stack_examples, with_added
from training.source import Example, Source

PyTree = Any
PREFETCH = 2  # batches ready on the devices besides the one that is worked on


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BatchResult:
    """What a function makes of one batch; trees of arrays, each of which may be left out.

    Attributes:
      sums: sums over the examples of the batch, each multiplied by `batch["weight"]`.
      rows: arrays [batch, ...] that every host gets.
      local: arrays [batch, ...] that stay on their devices but for the rows that are examined.
    """

    sums: PyTree = None
    rows: PyTree = None
    local: PyTree = None


@dataclass(frozen=True)
class Swept:
    """What came out of all batches, as numpy.

    Attributes:
      sums: as in `BatchResult`, float64; the same on every host.
      rows: arrays [examples, ...]; the same on every host.
      examined: example -> what `examine` returned; this host's own examples only.
    """

    sums: PyTree
    rows: PyTree
    examined: dict[int, Any] = field(default_factory=dict)


def over_batches(
    function: Callable[..., BatchResult],
    arguments: tuple[PyTree, ...],
    source: Source,
    batch_size: int,
    layout: Layout,
    workers: int = 4,
    examine: Callable[[int, PyTree], Any] | None = None,
    chosen: Collection[int] | None = None,
) -> Swept:
    """Applies a function to all examples of a source. All hosts call it alike.

    Args:
      function: `(*arguments, batch) -> BatchResult`, traceable. The batch has the source's keys,
        `index` int32 and `weight` fp32, 1 or 0 for rows that fill up the last batch. Functions
        that are equal (a frozen dataclass with `__call__`) are compiled once; a new lambda at
        each evaluation would be compiled at each.
      arguments: trees of arrays on the mesh.
      batch_size: of a global batch; rounded up to a multiple of the parts of the mesh.
      workers: threads that read.
      examine: `(example, its row of local as numpy)`, called on the one host that holds the row, in
        ascending order. Computes on a device of this host alone.
      chosen: the examples that are examined; all where None.

    Raises:
      InputError: an example cannot be read, or there is none.
      StopRequested: the run is to stop, on all hosts before the same batch.
    """
    if not len(source):
        raise InputError("the evaluation source has no examples; check the data folder and split")
    shards = batch_shards(layout.mesh)
    batch_size = -(-max(batch_size, 1) // shards) * shards
    compiled = _compiled(function, layout)
    sums: PyTree = None
    rows: list[PyTree] = []
    examined: dict[int, Any] = {}

    def collect(result: BatchResult, indices: np.ndarray) -> None:
        nonlocal sums
        # float64: fp32 would round at each of thousands of batches.
        added = jax.tree.map(lambda x: np.asarray(_host(x), np.float64), result.sums)
        sums = added if sums is None else jax.tree.map(np.add, sums, added)
        rows.append(jax.tree.map(lambda x: _host(x)[: len(indices)], result.rows))
        if examine is not None:
            for row, local in _own_rows(result.local, indices, chosen):
                with jax.set_mesh(_mesh_of(jax.local_devices()[0])):
                    examined[int(indices[row])] = examine(int(indices[row]), local)

    with contextlib.closing(batches_of(source, batch_size, layout, workers)) as batches:
        pending = None  # collected after the next batch is dispatched, so that no device waits
        for batch, indices in batches:
            distributed.raise_if_stopping()
            result = compiled(*arguments, batch)
            if pending is not None:
                collect(*pending)
            pending = (result, indices)
        if pending is not None:
            collect(*pending)
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *rows)
    return Swept(sums, joined, examined)


def from_all_hosts(values: Mapping[int, Any]) -> dict[int, Any]:
    """The JSON values that every host has for its own examples, of all hosts, ascending.

    All hosts call it alike. Meant for a few numbers an example; whole arrays belong in `rows`.
    """
    if jax.process_count() == 1:
        return dict(sorted(values.items()))
    text = np.frombuffer(json.dumps(list(values.items())).encode(), np.uint8)
    longest = int(np.max(multihost_utils.process_allgather(np.int32(len(text)))))
    padded = np.full(longest, ord(" "), np.uint8)  # blanks after a JSON text mean nothing
    padded[: len(text)] = text
    texts = multihost_utils.process_allgather(padded)
    return dict(sorted((index, v) for line in texts for index, v in json.loads(line.tobytes())))


def batches_of(
    source: Source, batch_size: int, layout: Layout, workers: int
) -> Generator[tuple[Batch, np.ndarray], None, None]:
    """Every example once, in order, as global batches of constant shape.

    Yields:
      The batch on the mesh, and the indices of its examples without those that fill it up.
    """
    readers = Readers(source, workers)
    last = len(source) - 1
    starts = range(0, len(source), batch_size)
    rows = layout.rows(batch_size)
    groups = (np.minimum(start + rows, last).tolist() for start in starts)
    # Not `load`, which augments: an example is evaluated as it is.
    reads = ReadAhead(readers, groups, source.__getitem__)

    def placed() -> Iterator[tuple[Batch, np.ndarray]]:
        for start, examples in zip(starts, reads):
            local = _stacked(examples, start + rows, last)
            indices = np.arange(start, min(start + batch_size, last + 1))
            yield layout.put_batch(local, batch_size), indices

    try:
        with contextlib.closing(run_ahead(placed(), PREFETCH, reads.stop)) as batches:
            yield from batches
    finally:
        readers.close()


def _stacked(examples: list[Example], wanted: np.ndarray, last: int) -> Example:
    added = {
        "index": np.minimum(wanted, last).astype(np.int32),
        "weight": (wanted <= last).astype(np.float32),
    }
    return with_added(stack_examples(examples), added)


@lru_cache(maxsize=16)
def _compiled(function: Hashable, layout: Layout) -> Callable[..., BatchResult]:
    places = BatchResult(layout.replicated, layout.replicated, layout.batch)
    return jax.jit(function, out_shardings=places)  # type: ignore[arg-type]


def _host(array: jax.Array) -> np.ndarray:
    """A replicated array as numpy, on any number of hosts."""
    return np.asarray(array.addressable_data(0))


def _own_rows(
    local: PyTree, indices: np.ndarray, chosen: Collection[int] | None
) -> Iterator[tuple[int, PyTree]]:
    """(row, its tree as numpy) of the wanted rows that this host holds, ascending.

    Where several hosts hold the same row, the one with the first replica has it.
    """
    leaves, structure = jax.tree.flatten(local)
    wanted = [
        row for row, index in enumerate(indices.tolist()) if chosen is None or index in chosen
    ]
    held: dict[int, list[np.ndarray]] = {}
    for leaf in leaves:
        for shard in leaf.addressable_shards:
            first = shard.index[0].start or 0
            if shard.replica_id == 0:
                # Cutting a row out is a computation, on this device alone.
                with jax.set_mesh(_mesh_of(shard.device)):
                    for row in wanted:
                        if first <= row < first + shard.data.shape[0]:
                            held.setdefault(row, []).append(np.asarray(shard.data[row - first]))
    for row in sorted(held):
        yield row, jax.tree.unflatten(structure, held[row])


@cache
def _mesh_of(device: Any) -> jax.sharding.Mesh:
    """A mesh of one device: under the mesh of the run, every host would have to compute alike."""
    return make_mesh(MeshConfig(), [device])
