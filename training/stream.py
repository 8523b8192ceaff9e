"""Host side of the data: which example is at which position, reading, replacement, prefetch.

The order is a pure function of (seed, position): epoch = position // n, then a permutation of that
epoch. The position is one integer (examples consumed), so a run continues the same order on any
number of processes. Global batch t holds positions [t * B, (t + 1) * B); a process reads its rows.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import jax
import numpy as np

from training.config import LoaderConfig
from training.errors import ConfigError, DataFault, InputError
from training.loss import Batch
from training.mesh import Layout, batch_shards
from training.source import Example, Source

MAX_ATTEMPTS = 10


class ExampleOrder:
    """`index(position)`: a new permutation of the examples in each epoch."""

    def __init__(self, length: int, seed: int):
        if length < 1:
            raise InputError("the training source has no examples; check the data folder and split")
        if not -(2**63) <= seed < 2**63:
            raise ConfigError(f"config.seed = {seed} does not fit 64 bits; take a smaller one")
        self.length, self.seed = length, seed
        self._epochs: dict[int, np.ndarray] = {}

    def index(self, position: int) -> int:
        """Index of the example at a position of the endless stream."""
        epoch, offset = divmod(position, self.length)
        order = self._epochs.get(epoch)
        if order is None:
            # Raw Philox output is stable across numpy versions; shuffles are not promised to be.
            raw = np.random.Philox(key=[self.seed, epoch]).random_raw(self.length)
            order = np.argsort(raw, kind="stable")
            kept = {e: o for e, o in self._epochs.items() if e >= epoch - 1}
            self._epochs = {**kept, epoch: order}
        return int(order[offset])

    def substitute(self, position: int, attempt: int) -> int:
        """Index that stands in for an unreadable example; the same on every rerun."""
        raw = np.random.Philox(key=[self.seed ^ 0x5EED, position]).random_raw(attempt)
        return int(raw[attempt - 1] % self.length)


def stack_examples(examples: list[Example]) -> Example:
    """One array per key with a new leading axis.

    Raises:
      ConfigError: examples whose keys, shapes or dtypes differ.
    """
    first = examples[0]
    for other in examples[1:]:
        if other.keys() != first.keys():
            raise ConfigError(f"examples differ in keys: {sorted(first)} and {sorted(other)}")
        for key in first:
            if np.shape(other[key]) != np.shape(first[key]):
                raise ConfigError(
                    f"examples differ in the shape of {key!r}: "
                    f"{np.shape(first[key])} and {np.shape(other[key])}"
                )
            # Stacked without this check, one float64 example would widen the whole batch.
            if np.asarray(other[key]).dtype != np.asarray(first[key]).dtype:
                raise ConfigError(
                    f"examples differ in the dtype of {key!r}: "
                    f"{np.asarray(first[key]).dtype} and {np.asarray(other[key]).dtype}"
                )
    return {key: np.stack([np.asarray(e[key]) for e in examples]) for key in first}


def _with_added(stacked: Example, added: Example) -> Example:
    """The batch with the stream's own keys, which no source may use."""
    shared = sorted(stacked.keys() & added.keys())
    if shared:
        raise ConfigError(
            f"examples use the key(s) {', '.join(map(repr, shared))}, which the stream adds "
            "itself; rename them in the source"
        )
    return {**stacked, **added}


class ExampleStream:
    """Reads this process's rows of any global batch; replaces and counts unreadable examples."""

    def __init__(
        self, source: Source, seed: int, batch_size: int, rows: np.ndarray, config: LoaderConfig
    ):
        self.source, self.batch_size, self.rows, self.config = source, batch_size, rows, config
        self.order = ExampleOrder(len(source), seed)
        self.read = 0
        self.replaced = 0
        self._pool = ThreadPoolExecutor(max(1, config.workers), "examples")

    def positions(self, step: int) -> np.ndarray:
        """Positions in the stream of this process's rows of a global batch."""
        return step * self.batch_size + self.rows

    def batch(self, step: int) -> Example:
        """Rows `[local batch, ...]` of the source's keys plus `position` and `index`."""
        positions = self.positions(step)
        loaded = list(self._pool.map(self._load, positions.tolist()))
        self.read += len(loaded)
        self._count_replaced([error for _, _, errors in loaded for error in errors])
        stacked = stack_examples([example for example, _, _ in loaded])
        added = {
            "position": (positions % 2**32).astype(np.uint32),
            "index": np.asarray([index for _, index, _ in loaded], np.int32),
        }
        return _with_added(stacked, added)

    def _load(self, position: int) -> tuple[Example, int, list[str]]:
        index, errors = self.order.index(position), []
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                return self.source[index], index, errors
            except InputError as error:
                errors.append(f"example {index}: {error}")
                index = self.order.substitute(position, attempt)
        raise DataFault(f"{MAX_ATTEMPTS} examples in a row could not be read; {errors[-1]}")

    def _count_replaced(self, errors: list[str]) -> None:
        self.replaced += len(errors)
        for error in errors:
            print(f"replaced {error}", file=sys.stderr)
        allowed = self.config.max_replaced_fraction
        if errors and self.read >= 100 and self.replaced > allowed * self.read:
            raise DataFault(
                f"{self.replaced} of {self.read} examples could not be read, above "
                f"config.loader.max_replaced_fraction = {allowed}; the last one: {errors[-1]}"
            )

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class Chunk:
    """Consecutive global batches for one call of the step."""

    first_step: int
    host: list[Example]  # this process's rows of each batch
    device: Batch  # global arrays [updates, batch, ...]

    @property
    def updates(self) -> int:
        return len(self.host)


def prefetched(
    stream: ExampleStream, plan: Iterable[tuple[int, int]], layout: Layout
) -> Generator[Chunk, None, None]:
    """Chunks for a plan of (first step, updates), prepared ahead of time by one thread."""

    def prepare(first: int, updates: int) -> Chunk:
        host = [stream.batch(first + i) for i in range(updates)]
        return Chunk(first, host, layout.put_batches(host, stream.batch_size))

    executor = ThreadPoolExecutor(1, "prefetch")
    waiting: deque[Future[Chunk]] = deque()
    steps = iter(plan)
    try:
        while True:
            while len(waiting) < max(1, stream.config.prefetch):
                item = next(steps, None)
                if item is None:
                    break
                waiting.append(executor.submit(prepare, *item))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def evaluation_batches(
    source: Source, batch_size: int, layout: Layout
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Every example once, in order, as global batches of constant shape.

    Yields:
      The batch, with `index` int32 and `weight` fp32 (1, or 0 for the rows that fill up the last
      batch), and the global indices on the host.

    Raises:
      ConfigError: a batch that the mesh cannot split evenly.
    """
    shards = batch_shards(layout.mesh)
    if batch_size < 1 or batch_size % shards:
        raise ConfigError(
            f"an evaluation batch of {batch_size} does not divide over the {shards} parts (data x "
            "fsdp) of the mesh; set config.evaluation.batch_size to a multiple of them"
        )
    rows = layout.rows(batch_size)
    for start in range(0, len(source), batch_size):
        wanted = np.arange(start, start + batch_size)
        indices = np.minimum(wanted, len(source) - 1)
        local = stack_examples([source[int(i)] for i in indices[rows]])
        added = {
            "index": indices[rows].astype(np.int32),
            "weight": (wanted[rows] < len(source)).astype(np.float32),
        }
        local = _with_added(local, added)
        yield layout.put_batch(local, batch_size), indices[wanted < len(source)]


def host_rows_are_unique(positions: np.ndarray, batch_size: int) -> bool:
    """Whether the gathered positions of all row groups are the whole batch, each once."""
    return len(positions) == batch_size and len(np.unique(positions)) == batch_size


def gather_positions(stream: ExampleStream, step: int, layout: Layout) -> np.ndarray:
    """Positions of a global batch as the devices hold them, identical on every process."""
    local = {"position": stream.positions(step).astype(np.int32)}
    batch = layout.put_batch(local, stream.batch_size)
    gathered = jax.jit(lambda x: x, out_shardings=layout.replicated)(batch["position"])
    return np.asarray(gathered.addressable_data(0))
