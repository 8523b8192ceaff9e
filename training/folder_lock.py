"""One run at a time in a work folder.

On a disk the lock is `flock` on `WORKDIR/.lock`, which the system lets go of however the process
ends. A bucket has no such lock. There `.lock` is an object with a *lease*: it names its owner, is
written again every `RENEW_SECONDS`, and whoever finds one older than `LEASE_SECONDS` may take it
over. Every write names the generation of the object that it replaces (0: there must be none), so
that of two who try at once the service lets only one win. Ages are taken by the service's clock.
A run whose lease was taken over, after it could not renew it for a minute, ends at once: another
one owns the folder and what it holds.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from etils import epath

from training import storage
from training.errors import InputError

LOCK = ".lock"
LEASE_SECONDS = 60.0
RENEW_SECONDS = 15.0  # three renewals in a row may fail before the lease is old enough
_MULTIPART = (
    b"--part\nContent-Type: application/json\n\n%s\n"
    b"--part\nContent-Type: application/octet-stream\n\n%s\n--part--"
)


@contextmanager
def held(folder: epath.Path, on_lost: Callable[[str], None] | None = None) -> Iterator[None]:
    """Holds the folder while the body runs.

    Args:
      folder: exists, and can be written.
      on_lost: called from another thread when the lease was taken over; None ends the process.

    Raises:
      InputError: another run holds it; the sentence names the owner.
    """
    if not storage.is_bucket(folder):
        with _flock(folder):
            yield
        return
    lease = Lease(folder, on_lost or _end_process)
    lease.acquire()
    try:
        yield
    finally:
        lease.release()


@contextmanager
def _flock(folder: epath.Path) -> Iterator[None]:
    # a+ keeps the line of the owner, which a refusal quotes, until the lock is ours.
    with open(folder / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise InputError(
                f"another run is at work in {folder} ({file.read().strip()}); wait for its end, "
                "or choose another folder"
            ) from error
        except OSError as error:
            # Some network file systems have no locks; the run goes on without this check.
            logging.warning("%s cannot be locked (%s)", folder, error.strerror)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


class Lease:
    """The lock of a folder in a bucket."""

    def __init__(self, folder: epath.Path, on_lost: Callable[[str], None]):
        self.path = folder / LOCK
        self._folder, self._on_lost = folder, on_lost
        self._owner = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "machine": _machine(),
            "token": secrets.token_hex(8),
        }
        self._generation = "0"
        self._failed = False  # whether the last renewal met no answer
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def acquire(self) -> None:
        """Takes the lease and keeps it renewed, or raises InputError with owner and age."""
        try:
            self._write("0")
        except FileExistsError:
            self._take_over()
        self._thread.start()

    def release(self) -> None:
        """Ends the renewal and removes the object, if it is still this run's."""
        self._stopped.set()
        # A renewal under way could otherwise find the object gone, and end the process.
        self._thread.join(timeout=RENEW_SECONDS)
        if self._thread.is_alive() or self._failed:
            return  # The bucket does not answer; the lease ends by its age.
        try:
            if self._is_own():
                _request(self.path, "DELETE", self._generation)
        except (FileExistsError, FileNotFoundError):
            pass  # Taken over at this moment: it is another run's now.
        except storage.failures() as error:
            logging.warning("%s was not removed (%s); it ends by itself", self.path, error)

    def renew(self) -> bool:
        """Writes the lease again; returns False when it is another run's now."""
        try:
            self._write(self._generation)
        except FileExistsError:
            return self._is_own()  # An answer that was lost on the way: the write itself counted.
        return True

    def _renew(self) -> None:
        while not self._stopped.wait(RENEW_SECONDS):
            try:
                if not self.renew():
                    self._on_lost(
                        f"another run has taken over {self._folder}, because this one could not "
                        f"renew its lock for {LEASE_SECONDS:.0f} s; it ends here"
                    )
                    return
                self._failed = False
            except (*storage.failures(), OSError) as error:
                # The bucket may come back; if it does not, the run notices when it writes.
                self._failed = True
                logging.warning("%s was not renewed (%s)", self.path, error)

    def _take_over(self) -> None:
        found = self._read()
        if found is None:  # Released in between.
            self._write_or_refuse("0", {})
            return
        metadata, owner = found
        age = (self._now() - _time(metadata["updated"])).total_seconds()
        # A run that was killed on this machine need not be waited for.
        if age < LEASE_SECONDS and not _has_ended(owner):
            raise self._refusal(owner, age)
        logging.info("taking over %s, %.0f s old, of %s", self.path, age, owner)
        self._write_or_refuse(metadata["generation"], owner)

    def _write_or_refuse(self, generation: str, owner: dict[str, Any]) -> None:
        try:
            self._write(generation)
        except FileExistsError:  # Another run was quicker.
            raise self._refusal(owner, 0.0) from None

    def _refusal(self, owner: dict[str, Any], age: float) -> InputError:
        who = f"process {owner.get('process', '?')} on {owner.get('host', 'an unknown host')}"
        return InputError(
            f"another run is at work in {self._folder} ({who}, last sign of life {age:.0f} s ago); "
            f"wait for its end, or, if it was killed, {max(LEASE_SECONDS - age, 1):.0f} s, or "
            "choose another folder"
        )

    def _write(self, generation: str) -> None:
        """Replaces the object if it still has that generation; FileExistsError if it has not."""
        answer = _request(self.path, "POST", generation, json.dumps(self._owner).encode())
        self._generation = answer["generation"]

    def _read(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Metadata and owner of the lease; None if there is none."""
        try:
            metadata = _request(self.path, "GET")
            owner = json.loads(storage.read_text(self.path))
        except FileNotFoundError:
            return None
        except json.JSONDecodeError:
            owner = {}
        return metadata, owner if isinstance(owner, dict) else {}

    def _is_own(self) -> bool:
        found = self._read()
        if found is None or found[1].get("token") != self._owner["token"]:
            return False
        self._generation = found[0]["generation"]
        return True

    def _now(self) -> datetime:
        """The time of the service, from an object that is written for it."""
        probe = self.path.with_name(f"{LOCK}.{self._owner['token']}")
        answer = _request(probe, "POST", None, b"")
        probe.unlink()
        return _time(answer["updated"])


def _request(
    path: epath.Path, method: str, generation: str | None = None, data: bytes | None = None
) -> dict[str, Any]:
    """One request of the service's JSON interface about an object; returns its metadata.

    Neither etils nor fsspec can make a write depend on the generation that it replaces.

    Raises:
      FileExistsError: the object has another generation.
      FileNotFoundError: there is no such object.
    """
    import fsspec

    service: Any = fsspec.filesystem("gcs")
    bucket, _, name = os.fspath(path).removeprefix(storage.BUCKET).partition("/")
    condition = {} if generation is None else {"ifGenerationMatch": generation}
    if data is None:
        read = method == "GET"
        return service.call(method, "b/{}/o/{}", bucket, name, json_out=read, **condition)
    # Metadata and content in one request; the emulator heeds conditions in this form only.
    return service.call(
        method,
        service.base.replace("/storage/v1/", f"/upload/storage/v1/b/{bucket}/o"),
        uploadType="multipart",
        headers={"Content-Type": 'multipart/related; boundary="part"'},
        data=_MULTIPART % (json.dumps({"name": name}).encode(), data),
        json_out=True,
        **condition,
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _machine() -> str:
    """A name for where process numbers are unique: one boot of one computer, one container."""
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        boot = file.read().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def _has_ended(owner: dict[str, Any]) -> bool:
    """Whether the owner was a process of this machine that is no more."""
    process = owner.get("process")
    if owner.get("machine") != _machine() or not isinstance(process, int):
        return False
    try:
        os.kill(process, 0)  # 0 is no signal: it asks whether the process exists
    except ProcessLookupError:
        return True
    except PermissionError:  # it exists, and is another user's
        return False
    return False


def _end_process(sentence: str) -> None:
    from training import distributed

    print(f"podvision: error: {sentence}", file=sys.stderr)
    # Called in the lease's thread, where an exception would end that thread only.
    distributed.leave(2)
