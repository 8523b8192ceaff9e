"""Says again and again what a long call waits for, where the call itself is silent."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SAY_SECONDS = 60.0  # between two lines


@contextmanager
def said_while_waiting(what: str, advice: str) -> Iterator[None]:
    """Prints a line each minute while the body runs, from a thread.

    Args:
      what: is waited for, such as `the other hosts`.
      advice: what to do if it does not come.
    """
    came = threading.Event()
    started = time.monotonic()

    def say() -> None:
        while not came.wait(SAY_SECONDS):
            waited = time.monotonic() - started
            line = f"podvision: waiting for {what} since {waited:.0f} s; {advice}"
            print(line, file=sys.stderr, flush=True)

    thread = threading.Thread(target=say, name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        came.set()
        thread.join()
