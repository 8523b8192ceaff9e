"""Sources for the tests of reading; they can be sent to reader processes."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time

import numpy as np

from training.errors import InputError


@dataclasses.dataclass(frozen=True)
class Augmenting:
    """Examples whose values depend on index and position; some cannot be read.

    Attributes:
      broken: examples that raise InputError.
      fatal: the example at which the reader process is killed.
      failing: the example at which the code fails.
    """

    length: int = 23
    seed: int = 5
    broken: tuple[int, ...] = ()
    fatal: int = -1
    failing: int = -1

    @property
    def fingerprint(self) -> str:
        return f"augmenting-{self.length}"

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if index in self.broken:
            raise InputError(f"file {index}.jpg is truncated; fetch it again")
        if index == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == self.failing:
            raise ZeroDivisionError("a mistake in the source")
        return {"x": np.full((3, 4), index, np.float32), "process": np.int64(os.getpid())}

    def load(self, index: int, position: int) -> dict[str, np.ndarray]:
        example = self[index]
        noise = np.random.default_rng([self.seed, position]).normal(size=(3, 4))
        return {**example, "x": example["x"] + noise.astype(np.float32)}

    def identity(self, index: int) -> str:
        return str(index)


class Slow(Augmenting):
    """Each example takes half a second."""

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        time.sleep(0.5)
        return super().__getitem__(index)


def happens(condition, seconds=20):
    """Whether a condition comes true in time; threads end a moment after they are told to."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def reader_threads() -> int:
    """Threads that read examples; those of other tests in this process may still be ending."""
    names = [thread.name for thread in threading.enumerate()]
    return sum(name.startswith(("examples", "ahead")) for name in names)
