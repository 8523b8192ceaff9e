"""Reading examples on a pool, in order: the next ones are read while a batch is stacked and moved.

A *group* is the examples of one batch that this host reads. Groups come out in their order, each
with its examples in order; an exception comes out where its example would have. Only how long that
takes depends on the number of readers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np

from training import distributed
from training.errors import ConfigError
from training.reader_process import ReaderProcess, load_example, pickled
from training.source import Example, Source

T = TypeVar("T")


class Readers:
    """A pool of threads that read examples; with `processes`, each through a process of its own."""

    def __init__(self, source: Source, workers: int, processes: int = 0):
        self.count = processes if processes > 0 else max(1, workers)
        self._source = source
        self._pickled = pickled(source) if processes > 0 else None
        self._pool = ThreadPoolExecutor(self.count, "examples")
        self._own = threading.local()
        self._lock = threading.Lock()  # for the next two
        self._started: list[ReaderProcess] = []
        self._closed = False

    def load(self, index: int, position: int) -> Example:
        """One example, read by the calling thread of the pool or by that thread's process."""
        if self._pickled is None:
            return load_example(self._source, index, position)
        if not hasattr(self._own, "process"):
            self._own.process = self._new_process(self._pickled)
        return self._own.process.load(index, position)

    def _new_process(self, source: bytes) -> ReaderProcess:
        with self._lock:
            # `close` stops the processes that it finds; one that is started later would go on.
            if self._closed:
                raise CancelledError
            self._started.append(ReaderProcess(source))
            return self._started[-1]

    def submit(self, read: Callable[..., T], *arguments: Any) -> Future[T]:
        return self._pool.submit(read, *arguments)

    def close(self) -> None:
        """Ends the pool: waits for examples that threads have begun, not for processes.

        Where the run is to stop it does not wait: an example may never come.
        """
        with self._lock:
            self._closed = True
        # In this order: no read begins any more, then the processes end that threads wait for.
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in self._started:
            process.stop()
        self._pool.shutdown(wait=not distributed.in_a_hurry())


class ReadAhead(Generic[T]):
    """Iterates over the results of groups of reads.

    While a group is waited for or used, at least one whole group after it and at least as many
    examples as there are readers have been asked for: no reader idles, and memory is bounded by two
    groups, or one and twice the readers.
    """

    def __init__(self, readers: Readers, groups: Iterable[Sequence[int]], read: Callable[[int], T]):
        self._readers, self._groups, self._read = readers, iter(groups), read
        self._waiting: deque[list[Future[T]]] = deque()
        self._current: list[Future[T]] = []
        self._lock = threading.Lock()
        self._stopped = False

    def __iter__(self) -> Generator[list[T], None, None]:
        try:
            while self._advance():
                yield [future.result() for future in self._current]
        finally:
            self.stop()

    def stop(self) -> None:
        """From any thread: cancels what no reader has begun; the iteration ends."""
        with self._lock:
            self._stopped = True
            for future in [*self._current, *(f for group in self._waiting for f in group)]:
                future.cancel()

    def _advance(self) -> bool:
        """Asks for more and makes the next group the current one; whether there is one."""
        with self._lock:
            while not self._stopped and self._too_few():
                group = next(self._groups, None)
                if group is None:
                    break
                self._waiting.append([self._readers.submit(self._read, item) for item in group])
            if self._stopped or not self._waiting:
                return False
            self._current = self._waiting.popleft()
            return True

    def _too_few(self) -> bool:
        after_the_next = list(self._waiting)[1:]
        return not after_the_next or sum(map(len, after_the_next)) < self._readers.count


def run_ahead(items: Iterator[T], depth: int, stop: Callable[[], None]) -> Generator[T, None, None]:
    """The items of an iterator that a thread of its own advances, at most `depth` ahead.

    Args:
      stop: called when the caller has enough; must end what the iterator waits for.
    """
    # One thread, because an iterator must not be advanced by two; it also keeps the order.
    executor = ThreadPoolExecutor(1, "ahead")
    end: Any = object()
    waiting = deque(executor.submit(next, items, end) for _ in range(max(1, depth)))
    try:
        while (item := waiting.popleft().result()) is not end:
            waiting.append(executor.submit(next, items, end))
            yield item
    finally:
        # First: the thread that is waited for below may itself wait for a read.
        stop()
        executor.shutdown(wait=not distributed.in_a_hurry(), cancel_futures=True)


def stack_examples(examples: Sequence[Example]) -> Example:
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


def with_added(stacked: Example, added: Example) -> Example:
    """The batch with keys of the core's own, which no source may use.

    Raises:
      ConfigError: the source uses one of them.
    """
    shared = sorted(stacked.keys() & added.keys())
    if shared:
        raise ConfigError(
            f"examples use the key(s) {', '.join(map(repr, shared))}, which are added when they "
            "are read; rename them in the source"
        )
    return {**stacked, **added}
