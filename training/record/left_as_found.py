"""A refused command leaves the place of its work folder as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from training import storage
from training.folder_lock import LOCK

ACCEPTED = "config.json"


@contextmanager
def left_as_found(workdir: storage.PathLike) -> Iterator[None]:
    """Removes after the body what only an attempt to begin has made there.

    That is the lock of a folder that has not become a run's, and folders that stayed empty. In a
    bucket there are no folders, and a lock is removed by who lets go of it.
    """
    if storage.is_bucket(workdir):
        yield
        return
    folder = storage.absolute(workdir)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    had_lock = (folder / LOCK).exists()
    try:
        yield
    finally:
        if not had_lock and not (folder / ACCEPTED).exists() and folder.is_dir():
            (folder / LOCK).unlink(missing_ok=True)
        for path in missing:  # the deepest first
            if not path.is_dir() or any(path.iterdir()):
                break
            path.rmdir()
