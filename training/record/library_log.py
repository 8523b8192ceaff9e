"""What libraries say goes to `WORKDIR/log.txt` of host 0 and `log-N.txt` of host N.

The terminal is for the progress of the run and for sentences to the user. Python's log records,
warnings and the tracebacks of background threads are held back from the start of a command on, and
written once the work folder is the run's (`keep`): a refused command leaves nothing there. Then
what native code prints goes there, too. A crash before that shows what was held back.

In a bucket, where files cannot grow, it is the log of the last launch and written at its end.
Messages of this program itself (the root logger, warnings and above) are shown in both places.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Iterator
from typing import Any

from training import storage
from training.errors import InputError

STDERR = 2
HELD_RECORDS = 200
# The file is cut to its newer half when it grows beyond this: nobody reads more.
LARGEST_BYTES = 8 * 2**20
SECONDS_BETWEEN_CUTS = 60.0


class LibraryLog(logging.Handler):
    """Holds records back until there is a file for them."""

    def __init__(self):
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self.held: deque[str] = deque(maxlen=HELD_RECORDS)
        self.file: storage.PathLike | None = None
        self._local: str | None = None  # where the file is until it goes into a bucket
        self._terminal: int | None = None
        self._stream: Any = None
        self._ended = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.write(self.format(record))
        if record.name == "root" and record.levelno >= logging.WARNING:
            print(f"podvision: {record.getMessage()}", file=sys.stderr)

    def write(self, text: str) -> None:
        """Adds a text, to the file or to what is held back."""
        if self.file is None:
            self.held.append(text)
            return
        # By its number, which is the file's now (see `open`); `sys.stderr` is the terminal. A full
        # disk ends the run with a sentence, which this must not drown.
        with contextlib.suppress(OSError):
            os.write(STDERR, (text + "\n").encode(errors="backslashreplace"))

    def open(self, file: storage.PathLike) -> None:
        """Continues in a file, with all that goes to standard error without passing Python."""
        self._send()
        local = os.fspath(file)
        if storage.is_bucket(file):  # which has no files that grow: it is sent at the end
            number, local = tempfile.mkstemp(prefix="podvision-", suffix=".txt")
            os.close(number)
            self._local = local
        # To be read by `cut`; O_APPEND, so that after a cut native code writes at the new end.
        opened = os.open(local, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        sys.stderr.flush()
        if standard_error_is(sys.stderr):
            self._stream = sys.stderr
            encoding, errors = sys.stderr.encoding, sys.stderr.errors
            # A copy of the terminal, because number 2 becomes the file below.
            copy = os.dup(STDERR)
            sys.stderr = os.fdopen(copy, "w", buffering=1, encoding=encoding, errors=errors)
        if self._terminal is None:  # else it is the next stage of a pipeline
            self._terminal = os.dup(STDERR)
            cutter = threading.Thread(target=self._cut_now_and_then, name="log", daemon=True)
            cutter.start()
        os.dup2(opened, STDERR)
        os.close(opened)
        cut(STDERR)
        self.file = file
        for text in self.held:
            self.write(text)
        self.held.clear()

    def _send(self) -> None:
        """Copies the file into the bucket that it is for."""
        if self._local is None or self.file is None:
            return
        local, self._local = self._local, None
        if storage.is_silent():  # The run has ended for that: another half minute helps nobody.
            return
        try:
            with open(local, "rb") as written, storage.explained(self.file, f"look at {local}"):
                storage.replace_bytes(self.file, written.read())
        except InputError as error:  # how the run itself ended has been said
            print(f"podvision: {error}", file=sys.stderr)
            return
        os.remove(local)

    def end(self) -> None:
        """Gives standard error back."""
        self._ended.set()
        self._send()
        if self._terminal is None:
            return
        if self._stream is not None:
            sys.stderr.close()
            sys.stderr = self._stream
        os.dup2(self._terminal, STDERR)
        os.close(self._terminal)
        self.file = self._terminal = self._stream = None

    def _cut_now_and_then(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_CUTS):
            cut(STDERR)


def cut(file: int) -> None:
    """Leaves the newer half of an open file that has grown too large."""
    size = os.fstat(file).st_size
    if size > LARGEST_BYTES:
        newer = os.pread(file, LARGEST_BYTES // 2, size - LARGEST_BYTES // 2)
        os.ftruncate(file, 0)
        os.write(file, newer[newer.find(b"\n") + 1 :])


def standard_error_is(stream: Any) -> bool:
    """Whether a stream writes to the process's standard error, and not to a capture of it."""
    try:
        return stream.fileno() == STDERR
    except (AttributeError, OSError, ValueError):  # a stream in memory has no number
        return False


_log: LibraryLog | None = None


@contextlib.contextmanager
def captured(debug: bool) -> Iterator[None]:
    """While the body runs, libraries are heard in the log only; with `debug` on the terminal."""
    global _log
    if debug or _log is not None:  # one command may run in another, as in a demo
        yield
        return
    root, _log = logging.getLogger(), LibraryLog()
    level, thread_hook, unraisable_hook = root.level, threading.excepthook, sys.unraisablehook
    handlers = root.handlers
    root.handlers = [_log]  # one that a library has installed would write to the terminal
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    threading.excepthook = lambda failure: _write_exception("thread", failure.exc_value)
    sys.unraisablehook = lambda failure: _write_exception("finalizer", failure.exc_value)
    try:
        yield
    # A crash: what libraries said may tell why, and no file has it yet.
    except Exception:
        for text in _log.held:
            print(text, file=sys.stderr)
        raise
    finally:
        logging.captureWarnings(False)
        root.handlers = handlers
        root.setLevel(level)
        threading.excepthook, sys.unraisablehook = thread_hook, unraisable_hook
        _log.end()
        _log = None


def keep(workdir: storage.PathLike, host: int) -> None:
    """From now on the log is a file of the work folder; call it when the folder is the run's."""
    if _log is None:
        return
    name = "log.txt" if host == 0 else f"log-{host}.txt"
    _log.open(storage.as_path(workdir) / name)


def _write_exception(where: str, error: BaseException | None) -> None:
    if _log is not None and error is not None:
        text = "".join(traceback.format_exception(error))
        _log.write(f"in a {where} ({threading.current_thread().name}):\n{text}")
