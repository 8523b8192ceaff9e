"""Records of a bucket on this machine's disk, where the library that reads them needs them.

Each host copies the shards of a split once, into `~/.cache/podvision/records` (the variable
PODVISION_CACHE names another place), and needs the space for them. Where they do not fit, mount the
bucket (gcsfuse) and name the mounted folder. The copy is of one state of the folder: names, sizes
and times make up the name of the copy, so that records that were prepared again are copied again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from etils import epath

from training import storage

CACHE = "PODVISION_CACHE"
THREADS = 8


def local_copy(folder: epath.Path, names: Iterable[str]) -> epath.Path:
    """A folder on a disk with these files of `folder`; `folder` itself if it is on one.

    Raises:
      InputError: the bucket does not answer, or the disk of the cache is full.
    """
    if not storage.is_bucket(folder):
        return folder
    files = [folder / name for name in names]
    with ThreadPoolExecutor(THREADS) as pool:
        facts = list(pool.map(lambda path: path.stat(), files))
        state = [[path.name, fact.length, fact.mtime] for path, fact in zip(files, facts)]
        digest = hashlib.sha256(json.dumps([str(folder), state]).encode()).hexdigest()[:16]
        copy = storage.make_folder(_cache() / digest)
        with (
            storage.explained(copy, "or set PODVISION_CACHE to a larger disk"),
            _one_at_a_time(copy),
        ):
            missing = [path for path in files if not (copy / path.name).exists()]
            list(pool.map(lambda path: _fetch(path, copy / path.name), missing))
    return copy


def _cache() -> epath.Path:
    chosen = os.environ.get(CACHE, "~/.cache/podvision")
    return epath.Path(chosen).expanduser() / "records"


def _fetch(path: epath.Path, target: epath.Path) -> None:
    # A copy that was cut off must not pass for a whole file.
    partial = target.with_name(f"{target.name}.partial")
    path.copy(partial, overwrite=True)
    os.replace(partial, target)


@contextmanager
def _one_at_a_time(folder: epath.Path) -> Iterator[None]:
    """Several processes of this machine may ask for the same copy: the first one makes it."""
    with open(folder / ".lock", "w", encoding="utf-8") as file:
        # A lock of the system ends with its process: none is left behind by one that was killed.
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
