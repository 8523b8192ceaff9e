"""Ctrl-C and SIGTERM: the first asks a command to stop, a second Ctrl-C ends it at once.

A command chooses how it answers to the first one:

* `ASK`: it looks at `requested()` and ends in order; training saves first. Exit code 0.
* `END`: it loses nothing by being interrupted, so it is: KeyboardInterrupt. Exit code 130 or 143.
* `OWN`: it has handlers of its own.

Python calls a handler only when the main thread is back from native code, and that may be a
compilation of minutes. A thread therefore reads the numbers of arriving signals from a pipe
(`signal.set_wakeup_fd`), so that a second Ctrl-C works at any time. Only this process is known
here; `training.distributed` asks all hosts. Imports nothing heavy: it listens before jax is there.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from training.errors import EXIT_DONE, EXIT_INTERRUPTED, ConfigError

T = TypeVar("T")

ASK, END, OWN = "ask", "end", "own"
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# What has not ended so long after an interrupt hangs in native code, and is ended.
GRACE_SECONDS = 5.0
# Exit code of a command that was told to stop and saved; 0 without it. For what starts runs again
# by their exit code alone, and would take a 0 for the end.
PREEMPTED_CODE = "PODVISION_PREEMPTED_EXIT_CODE"
# Some wrappers pass on the Ctrl-C that the terminal has already sent: that is one, not two.
ONE_KEYSTROKE_SECONDS = 0.2


class StopRequested(BaseException):
    """Raised by `interruptible`; like KeyboardInterrupt, no handler of errors catches it."""


class Listener:
    """Receives the signals of this process for one command.

    Attributes:
      first: number of the first signal, or None.
      may_interrupt: the main thread waits in `interruptible`.
      nothing_to_lose: the main thread is in `ending_freely`.
    """

    def __init__(self, answer: str, name: str):
        """`answer` is ASK or END; `name` stands before the sentences for the user."""
        self.answer, self.name = answer, name
        self.first: int | None = None
        self.may_interrupt = self.nothing_to_lose = False
        self._tell: Callable[[], None] | None = None
        self._lock = threading.Lock()  # for `_answered` and `_tell`, in two threads
        self._interrupted = self._answered = False
        self._interrupts, self._last_interrupt = 0, float("-inf")
        self._late: threading.Timer | None = None
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)  # a handler must not wait

    def start(self) -> None:
        """Takes the signals over; in the main thread."""
        self._before = {number: signal.signal(number, self.in_main_thread) for number in SIGNALS}
        self._wakeup_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._read, name="signals", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Gives the signals back to whoever had them before."""
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            # None: it was not set from Python, and cannot be set again from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        os.close(self._write_end)  # ends the thread, which may have something to say yet
        self._thread.join(timeout=1.0)
        if self._late is not None:
            self._late.cancel()

    def in_main_thread(self, number: int, frame: FrameType | None) -> None:
        """The handler, called by Python between two instructions of the main thread."""
        del frame
        self.first = number if self.first is None else self.first
        if self.answer == END and not self._interrupted:  # once: the way out is not interrupted
            self._interrupted = True
            raise KeyboardInterrupt
        if self.may_interrupt:
            # Once: what the exception passes on its way out must not be interrupted.
            self.may_interrupt = False
            raise StopRequested

    def _read(self) -> None:
        """The thread: the pipe gives one byte, the number, for each signal."""
        while byte := os.read(self._read_end, 1):
            if byte[0] in SIGNALS:
                self._received(byte[0])
        os.close(self._read_end)

    def _received(self, number: int) -> None:
        if number == signal.SIGINT and self._is_second_interrupt():
            self._end("ended at once by a second Ctrl-C", EXIT_INTERRUPTED)
        with self._lock:
            if self._answered:
                return
            self._answered, tell = True, self._tell
        self.first = number if self.first is None else self.first
        if self.answer == END:
            args = (interrupted(), exit_code())
            self._late = threading.Timer(GRACE_SECONDS, self._end, args)
            self._late.daemon = True
            self._late.start()
        elif self.nothing_to_lose:
            sentence = "asked to stop before the first update; nothing had to be saved"
            self._end(sentence, preempted_exit_code())
        else:
            self._say("asked to stop: it ends in order; a second Ctrl-C ends it at once")
            if tell is not None:
                tell()

    def pass_on_to(self, tell: Callable[[], None]) -> None:
        """Calls `tell` once: at the first signal, or now if that has been."""
        with self._lock:
            self._tell = tell
            late = self._answered
        if late:
            tell()

    def _is_second_interrupt(self) -> bool:
        now = time.monotonic()
        if now - self._last_interrupt >= ONE_KEYSTROKE_SECONDS:
            self._interrupts += 1
        self._last_interrupt = now
        return self._interrupts > 1

    def _say(self, sentence: str) -> None:
        print(f"podvision {self.name}: {sentence}", file=sys.stderr, flush=True)

    def _end(self, sentence: str, code: int) -> None:
        """Ends the process from another thread; the main thread may be long in coming back."""
        if sys.stderr.isatty():
            sys.stderr.write("\x1b[?25h\n")  # a progress bar hides the cursor
        self._say(sentence)
        # `os._exit` calls no exit functions, which would have ended them.
        import multiprocessing

        for child in multiprocessing.active_children():
            child.kill()
        os._exit(code)


_listener: Listener | None = None
_was_requested = False  # of the command that ran last; asked when there is no listener any more


@contextmanager
def listening(answer: str, name: str) -> Iterator[None]:
    """Receives Ctrl-C and SIGTERM while the body runs; one command inside another is asked once.

    Outside of the main thread nothing is received, because Python allows handlers only there.
    """
    global _listener, _was_requested
    if answer == OWN or threading.current_thread() is not threading.main_thread():
        yield
        return
    before, _listener = _listener, Listener(answer, name)
    _was_requested = False
    _listener.start()
    try:
        yield
    finally:
        _listener.stop()
        _was_requested = _listener.first is not None
        if before is not None and before.first is None:
            before.first = _listener.first
        _listener = before


def requested() -> bool:
    """Whether this process was asked to stop, at any time since the command began."""
    return _listener is not None and _listener.first is not None


def was_requested() -> bool:
    """Whether the command that runs or ran last was asked to stop."""
    return requested() or _was_requested


def answers() -> bool:
    """Whether the command looks at `requested()`, instead of being interrupted."""
    return _listener is not None and _listener.answer == ASK


def preempted_exit_code() -> int:
    """What a run that was told to stop and saved ends with: 0, or what the environment asks for.

    Raises:
      ConfigError: it asks for no exit code.
    """
    text = os.environ.get(PREEMPTED_CODE, str(EXIT_DONE))
    if not text.isdecimal() or int(text) > 255:
        raise ConfigError(f"{PREEMPTED_CODE} is {text!r}; exit codes are 0 to 255")
    return int(text)


def exit_code() -> int:
    """Of a command that was interrupted: 130 after Ctrl-C, 143 after SIGTERM."""
    first = signal.SIGINT if _listener is None or _listener.first is None else _listener.first
    return 128 + first


def interrupted() -> str:
    """What to say of a command that was interrupted."""
    cause = "SIGTERM" if exit_code() == 128 + signal.SIGTERM else "Ctrl-C"
    return f"ended by {cause} before it was done"


@contextmanager
def interruptible() -> Iterator[None]:
    """A wait that a stop may break off: for data, a compilation in a thread, a browser.

    Raises:
      StopRequested: as soon as this process is asked to stop; at once if it was before.
    """
    listener = _listener
    if listener is None or listener.answer != ASK:
        yield
        return
    # Set before the look at `first`: a signal between the two lines is not missed.
    listener.may_interrupt = True
    try:
        if listener.first is not None:
            raise StopRequested
        yield
    finally:
        listener.may_interrupt = False


def in_a_thread(function: Callable[[], T]) -> T:
    """The result of a call, which is made in a thread so that a stop need not wait for it.

    Raises:
      StopRequested: as `interruptible` does; the thread goes on, and nobody looks at its result.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except Exception as error:  # noqa: BLE001 - raised again where the result is awaited
            future.set_exception(error)

    threading.Thread(target=run, name="interruptible", daemon=True).start()
    with interruptible():
        return future.result()


@contextmanager
def ending_freely() -> Iterator[None]:
    """While the body runs a stop ends the process at once with exit code 0: nothing is lost."""
    listener = _listener
    if listener is None or listener.answer != ASK:
        yield
        return
    listener.nothing_to_lose = True
    try:
        yield
    finally:
        listener.nothing_to_lose = False


def pass_on_to(tell: Callable[[], None]) -> None:
    """Calls `tell` when this process is asked to stop; at once if it was before."""
    if _listener is not None:
        _listener.pass_on_to(tell)


@contextmanager
def children_without_ctrl_c() -> Iterator[None]:
    """Processes that are started in the body leave Ctrl-C to this one.

    A terminal sends it to all processes of the program. What is blocked stays blocked in a child,
    from its first instruction on; here it is delivered after the body.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def take_signals_back() -> None:
    """Handles signals here again, after a library has put its own handler in the place."""
    if _listener is not None:
        for number in SIGNALS:
            signal.signal(number, _listener.in_main_thread)
