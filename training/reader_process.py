"""A process that reads examples: for sources whose Python code keeps threads from running at once.

The parent asks for one example at a time over a socket pair; the bytes of its arrays follow the
answer as they are and land in the arrays that the batch is stacked from. (Measured for 5 MB: 1.7 ms
so, 13 ms as one pickle through a pipe, 0.8 ms through shared memory, of which containers often have
no more than 64 MB. See docs/performance.md.)

This file and what it imports must not import jax: a reader has to start quickly and must never
touch an accelerator.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import signal
import socket
import struct
import traceback
from typing import TYPE_CHECKING, Any

import numpy as np

from training.errors import ConfigError, DataFault

if TYPE_CHECKING:
    from training.source import Example, Source

_COUNT = struct.Struct("<Q")


def load_example(source: Source, index: int, position: int) -> Example:
    """`source.load(index, position)` where a source has it (see there), else `source[index]`."""
    load = getattr(source, "load", None)
    return source[index] if load is None else load(index, position)


class ReaderProcess:
    """One reader, started at once. Not safe for several threads: each keeps its own."""

    def __init__(self, source: bytes):
        """Starts it with a source as `pickled` made it."""
        # spawn: a forked child of a process with threads (jax has many) may deadlock.
        context = multiprocessing.get_context("spawn")
        self._socket, theirs = socket.socketpair()
        self._process = context.Process(target=_serve, args=(theirs, source), daemon=True)
        self._process.start()
        # Only the child may hold that end: when it dies, reading here ends instead of waiting.
        theirs.close()
        # Registered after multiprocessing's own exit function, so that it runs before it: that one
        # waits for readers, which take no notice of signals.
        atexit.register(self.stop)

    def load(self, index: int, position: int) -> Example:
        """The example, or the exception that reading it raised there.

        Raises:
          DataFault: the process has died.
        """
        try:
            _send(self._socket, (index, position))
            answer = _receive(self._socket)
        except OSError as error:
            raise DataFault(self._obituary(index)) from error
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _obituary(self, index: int) -> str:
        self._process.join(5)  # the socket may close a moment before the exit code is known
        code = self._process.exitcode
        if code is not None and code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
            if code == -signal.SIGKILL:
                how += ", as happens where memory runs out,"
        else:
            how = f"ended with exit code {code}"
        return (
            f"a reader process {how} while it read example {index}; look at that example, or set "
            "config.loader.processes lower, or to 0 to read in threads"
        )

    def stop(self) -> None:
        """Ends the process, in the middle of an example if need be."""
        atexit.unregister(self.stop)
        self._process.kill()  # not `terminate`: a reader ignores SIGTERM
        self._process.join()
        # Wakes a thread that still waits for an answer; closing alone would not.
        with self._socket as connection:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # the other end is gone, and nobody waits


def pickled(source: Source) -> bytes:
    """The source as it is sent to reader processes.

    Raises:
      ConfigError: it cannot be pickled.
    """
    try:
        return pickle.dumps(source)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"config.loader.processes needs a source that can be pickled, and "
            f"{type(source).__name__} cannot ({error}); set it to 0 to read in threads"
        ) from error


def _serve(connection: socket.socket, pickled_source: bytes) -> None:
    """The reader: answers until the parent closes its end or is gone."""
    # A stop request often goes to all processes: the parent saves then and ends its readers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.environ["JAX_PLATFORMS"] = "cpu"  # where a source imports jax: accelerators are the parent's
    source: Any = None
    while True:
        try:
            index, position = _receive(connection)
        except OSError:
            return
        try:
            # In here, so that an error of unpickling reaches the parent as an answer.
            if source is None:
                source = pickle.loads(pickled_source)  # noqa: S301 - made by the parent
            answer: Any = load_example(source, index, position)
        except Exception as error:  # noqa: BLE001 - raised again in the parent, whatever it is
            answer = _portable(error)
        _send(connection, answer)


def _portable(error: Exception) -> Exception:
    """The exception with its traceback as a note, or one of the same text if it cannot travel."""
    text = traceback.format_exc()
    try:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
    except Exception:  # noqa: BLE001 - pickling runs code of the exception's own
        copy = RuntimeError(f"{type(error).__name__}: {error}")
    copy.add_note(f"in a reader process:\n{text}")
    return copy


def _send(connection: socket.socket, value: Any) -> None:
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts = [head, *(buffer.raw() for buffer in buffers)]
    sizes = b"".join(_COUNT.pack(len(part)) for part in parts)
    connection.sendall(_COUNT.pack(len(parts)) + sizes + head)
    for part in parts[1:]:
        connection.sendall(part)


def _receive(connection: socket.socket) -> Any:
    (count,) = _COUNT.unpack(_exactly(connection, _COUNT.size))
    sizes = [size for (size,) in _COUNT.iter_unpack(_exactly(connection, count * _COUNT.size))]
    head, *buffers = [_exactly(connection, size) for size in sizes]
    return pickle.loads(head, buffers=buffers)  # noqa: S301 - from the other end only


def _exactly(connection: socket.socket, size: int) -> memoryview:
    """So many bytes, in memory that an array can be made of without a copy.

    Raises:
      ConnectionError: the other end closed before.
    """
    # numpy, because a bytearray would be filled with zeros first.
    view, done = np.empty(size, np.uint8).data, 0
    while done < size:
        read = connection.recv_into(view[done:], 0, socket.MSG_WAITALL)
        if not read:
            raise ConnectionError("closed by the other end")
        done += read
    return view
