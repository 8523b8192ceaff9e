"""Training batches: this host's rows of each global batch, with unreadable examples replaced.

The position is one integer (examples consumed), so a run continues the same order on any number of
processes. Global batch t holds positions [t * B, (t + 1) * B); a process reads its rows.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from training.config import LoaderConfig
from training.errors import DataFault, InputError
from training.loss import Batch
from training.mesh import Layout
from training.order import ExampleOrder
from training.reading import ReadAhead, Readers, run_ahead, stack_examples, with_added
from training.source import Example, Source

MAX_ATTEMPTS = 10


@dataclass(frozen=True)
class Loaded:
    """An example, its index in the source, and a sentence for each unreadable one before it."""

    example: Example
    index: int
    replaced: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chunk:
    """Consecutive global batches for one call of the step."""

    first_step: int
    host: list[Example]  # this process's rows of each batch
    device: Batch  # global arrays [updates, batch, ...]

    @property
    def updates(self) -> int:
        return len(self.host)


class ExampleStream:
    """Reads this process's rows of any global batch; replaces and counts unreadable examples.

    Attributes:
      read, replaced: examples that were handed out, and unreadable ones among them. Both count
        every batch once, in the order of the steps, however far ahead the readers are.
    """

    def __init__(
        self, source: Source, seed: int, batch_size: int, rows: np.ndarray, config: LoaderConfig
    ):
        self.source, self.batch_size, self.rows, self.config = source, batch_size, rows, config
        self.order = ExampleOrder(len(source), seed)
        self.read = 0
        self.replaced = 0
        self._counted = 0  # first step that has not been counted
        self._readers = Readers(source, config.workers, config.processes)

    def positions(self, step: int) -> np.ndarray:
        """Positions in the stream of this process's rows of a global batch."""
        return step * self.batch_size + self.rows

    def batch(self, step: int) -> Example:
        """Rows `[local batch, ...]` of the source's keys plus `position` and `index`.

        Raises:
          DataFault: too many examples could not be read.
        """
        (loaded,) = self.reads([step])
        self.count(step, [one.replaced for one in loaded])
        return self.stack(step, loaded)

    def reads(self, steps: Iterable[int]) -> ReadAhead[Loaded]:
        """The examples of each step, read ahead; they still have to be counted and stacked."""
        groups = (self.positions(step).tolist() for step in steps)
        return ReadAhead(self._readers, groups, self._load)

    def stack(self, step: int, loaded: list[Loaded]) -> Example:
        """The host's rows of a batch."""
        # Positions wrap at 2**32: devices only fold them into keys.
        added = {
            "position": (self.positions(step) % 2**32).astype(np.uint32),
            "index": np.asarray([one.index for one in loaded], np.int32),
        }
        return with_added(stack_examples([one.example for one in loaded]), added)

    def count(self, step: int, replaced: Sequence[tuple[str, ...]]) -> None:
        """Counts a batch that is handed out, unless it was before (by a check at the start).

        Args:
          step: of the batch.
          replaced: `Loaded.replaced` of each of its examples.

        Raises:
          DataFault: the replaced fraction is above the config's.
        """
        if step < self._counted:
            return
        self._counted = step + 1
        errors = [error for one in replaced for error in one]
        self.read += len(replaced)
        self.replaced += len(errors)
        for error in errors:
            print(f"replaced {error}", file=sys.stderr)
        allowed = self.config.max_replaced_fraction
        # 100: before, one bad example would already be more than the usual 1 %.
        if errors and self.read >= 100 and self.replaced > allowed * self.read:
            raise DataFault(
                f"{self.replaced} of {self.read} examples could not be read, above "
                f"config.loader.max_replaced_fraction = {allowed}; the last one: {errors[-1]}"
            )

    def _load(self, position: int) -> Loaded:
        index, errors = self.order.index(position), []
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                return Loaded(self._readers.load(index, position), index, tuple(errors))
            # Only this: a bug in a source must not pass for an unreadable example.
            except InputError as error:
                errors.append(f"example {index}: {error}")
                index = self.order.substitute(position, attempt)
        raise DataFault(f"{MAX_ATTEMPTS} examples in a row could not be read; {errors[-1]}")

    def close(self) -> None:
        self._readers.close()


def prefetched(
    stream: ExampleStream, plan: Iterable[tuple[int, int]], layout: Layout
) -> Generator[Chunk, None, None]:
    """Chunks for a plan of (first step, updates), prepared ahead of time by one thread."""
    # Both are drawn from by that thread only: tee is not safe for two.
    calls, calls_read = itertools.tee(plan)
    reads = stream.reads(first + i for first, updates in calls_read for i in range(updates))

    def prepared() -> Iterator[tuple[Chunk, list[list[tuple[str, ...]]]]]:
        batches = iter(reads)
        for first, updates in calls:
            host, replaced = [], []
            for step, loaded in zip(range(first, first + updates), batches):
                host.append(stream.stack(step, loaded))
                replaced.append([one.replaced for one in loaded])
            yield Chunk(first, host, layout.put_batches(host, stream.batch_size)), replaced

    with contextlib.closing(run_ahead(prepared(), stream.config.prefetch, reads.stop)) as chunks:
        for chunk, replaced in chunks:
            # Counted here and not where they are read, so that no figure depends on how far ahead
            # the readers are.
            for i, of_batch in enumerate(replaced):
                stream.count(chunk.first_step + i, of_batch)
            yield chunk


def host_rows_are_unique(positions: np.ndarray, batch_size: int) -> bool:
    """Whether the gathered positions of all row groups are the whole batch, each once."""
    return len(positions) == batch_size and len(np.unique(positions)) == batch_size


def gather_positions(stream: ExampleStream, step: int, layout: Layout) -> np.ndarray:
    """Positions of a global batch as the devices hold them, identical on every process."""
    # Late in a long run they wrap, and within a batch still differ.
    local = {"position": stream.positions(step).astype(np.int32)}
    batch = layout.put_batch(local, stream.batch_size)
    gathered = jax.jit(lambda x: x, out_shardings=layout.replicated)(batch["position"])
    return np.asarray(gathered.addressable_data(0))
