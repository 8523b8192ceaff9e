"""Notices a run that hangs: a thread that dumps every Python stack when no step finishes in time.

The limit is max(`hang_seconds`, `hang_factor` x the median step time). Waiting in XLA, in a
collective or in I/O releases the interpreter lock, so this thread runs while the others hang. It
ends nothing by itself: on a pod the other hosts may still be writing a checkpoint. With
`hang_exit_seconds` it ends the process so long after: a host that hangs goes on answering to
heartbeats, and nobody else would notice.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from training import distributed, storage
from training.errors import EXIT_HANG
from training.record.progress import format_duration
from training.storage import PathLike

POLLS_PER_LIMIT = 20
LONGEST_POLL_SECONDS = 10.0


class Watchdog:
    """Use it as a context manager around the loop; `beat` after every finished step."""

    def __init__(
        self,
        workdir: PathLike,
        hang_seconds: float,
        hang_factor: float,
        process: int = 0,
        clock: Callable[[], float] = time.monotonic,
        on_hang: Callable[[str], None] | None = None,
        exit_seconds: float = 0.0,
        leave: Callable[[int], object] = distributed.leave,
    ):
        """`on_hang` receives the sentence, in the watchdog's thread.

        Args:
          exit_seconds: from the report of a hang to the end of the process; 0: never.
          leave: ends the process with an exit code.
        """
        name = "hang.txt" if process == 0 else f"hang-{process}.txt"
        self.path = storage.as_path(workdir) / name
        self._process = process
        self._seconds, self._factor = hang_seconds, hang_factor
        self._clock, self._on_hang = clock, on_hang
        self._exit_seconds, self._leave = exit_seconds, leave
        self._median = 0.0
        self._step: int | None = None
        self._beat_at = clock()
        self._reported = False
        self._pauses = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._restart_clock()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the thread; may be called twice."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def limit(self) -> float:
        """Seconds without a finished step after which the run is said to hang."""
        return max(self._seconds, self._factor * self._median)

    def beat(self, step: int, median_seconds: float | None = None) -> None:
        """Step `step` has finished; pass the median step time when it is at hand."""
        if median_seconds is not None:
            self._median = median_seconds
        self._step = step
        self._restart_clock()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No alarm in its body: compilation, evaluation, a blocking save. May be nested."""
        with self._lock:
            self._pauses += 1
        try:
            yield
        finally:
            with self._lock:
                self._pauses -= 1
            self._restart_clock()

    def check(self) -> bool:
        """Reports a hang, once until the next beat; returns whether it did so now."""
        with self._lock:
            waited = self._clock() - self._beat_at
            quiet = self._pauses > 0 or waited <= self.limit
            ends = self._exit_seconds > 0 and waited > self.limit + self._exit_seconds
            if not quiet and self._reported and ends:
                self._end(waited)
            if quiet or self._reported:
                return False
            self._reported = True
        # Without the lock: writing may take long, and `beat` must not wait for it.
        self._report(waited)
        return True

    def _end(self, waited: float) -> None:
        """With the lock: a step that finishes now comes too late."""
        print(
            f"podvision: process {self._process} ends itself, {format_duration(waited)} after the "
            f"last step (config.guards.hang_exit_seconds = {self._exit_seconds:g}); the same "
            "command resumes from the newest checkpoint",
            file=sys.stderr,
        )
        self._leave(EXIT_HANG)

    def _restart_clock(self) -> None:
        with self._lock:
            self._beat_at = self._clock()
            self._reported = False

    def _watch(self) -> None:
        # Asked anew each time: the limit follows the median step.
        while not self._stopped.wait(min(self.limit / POLLS_PER_LIMIT, LONGEST_POLL_SECONDS)):
            self.check()

    def _report(self, waited: float) -> None:
        last = "before the first step" if self._step is None else f"since step {self._step}"
        sentence = (
            f"No step has finished for {format_duration(waited)} {last} on process "
            f"{self._process} (limit {format_duration(self.limit)}); the stacks of all threads "
            f"are in {self.path} [guard hang; see docs/failures.md#hang]"
        )
        text = f"{sentence}\n\n{format_stacks()}"
        print(text, file=sys.stderr, flush=True)
        # Whole, because an object of a bucket cannot grow.
        earlier = storage.read_text(self.path) if self.path.exists() else ""
        storage.replace_text(self.path, f"{earlier}{text}\n")
        if self._on_hang is not None:
            self._on_hang(sentence)


def format_stacks() -> str:
    """The Python stack of every thread but the caller's, each under the name of the thread."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    own = threading.get_ident()
    parts = [
        f"Thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
        if ident != own
    ]
    return "\n".join(parts)
