"""The user's paths, on a disk or in a bucket: what is read and written goes through here.

A path is a str or an os.PathLike; `gs://bucket/folder` names a folder in Google Cloud Storage, and
needs the `[gcs]` extra. `as_path` makes an `etils.epath.Path` of either, which reads like pathlib.
A bucket differs from a disk in three ways that callers must know:

* an object is written whole: it appears complete or not at all, and can neither be appended to
  (`training/line_file.py` is for that) nor be renamed for free;
* there are no folders, only names with slashes: an empty folder does not exist, and needs no mkdir;
* a request takes milliseconds to seconds and is tried again for half a minute before it fails.

`STORAGE_EMULATOR_HOST` names an emulator of the service, as in Google's own clients.
"""

from __future__ import annotations

import errno
import functools
import importlib.util
import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from etils import epath

from training.errors import InputError

PathLike: TypeAlias = str | os.PathLike[str]

BUCKET = "gs://"
EMULATOR = "STORAGE_EMULATOR_HOST"
FULL = (errno.ENOSPC, errno.EDQUOT)

_silent = False


def is_bucket(path: PathLike) -> bool:
    """Whether a path lies in a bucket."""
    return os.fspath(path).startswith(BUCKET)


def as_path(path: PathLike) -> epath.Path:
    """The path, ready to be read or written.

    Raises:
      InputError: it lies in a bucket and the extra for that is not installed, or it is the address
        of something else.
    """
    text = os.fspath(path)
    scheme, separator, rest = text.partition("://")
    if separator:
        if scheme != "gs" or not rest.strip("/"):
            raise InputError(f"{text} is neither a path nor gs://BUCKET/FOLDER; choose one of them")
        _open_buckets(text)
    return epath.Path(text)


def absolute(path: PathLike) -> epath.Path:
    """The path, independent of the current folder."""
    path = as_path(path)
    return path if is_bucket(path) else path.resolve()


def make_folder(folder: PathLike) -> epath.Path:
    """Makes a folder and its parents where folders exist, that is on a disk; returns its path."""
    folder = as_path(folder)
    if not is_bucket(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def list_folder(folder: PathLike) -> list[epath.Path]:
    """What lies directly in a folder, sorted; nothing if the folder does not exist."""
    folder = as_path(folder)
    try:
        # Some tools leave an empty object where the folder is, which then lists itself.
        return sorted(path for path in folder.iterdir() if path != folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_text(path: PathLike) -> str:
    """The text of a file; bytes that are not UTF-8 become U+FFFD.

    Raises:
      OSError: FileNotFoundError if there is none.
    """
    return as_path(path).read_bytes().decode("utf-8", errors="replace")


def read_json_object(path: PathLike) -> dict[str, Any]:
    """The JSON object in a file that this program wrote.

    Raises:
      InputError: the file is damaged.
    """
    try:
        content = json.loads(as_path(path).read_bytes().decode("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged ({error}); restore it, or delete it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} does not hold a JSON object; restore it, or delete it")
    return content


def replace_text(path: PathLike, text: str) -> None:
    """Writes a UTF-8 file; a reader sees the old one or the new one, whole, whenever it looks."""
    replace_bytes(path, text.encode("utf-8"))


def replace_bytes(path: PathLike, data: bytes) -> None:
    """Writes a file; a reader sees the old one or the new one, whole, whenever it looks.

    Its folder is made if it is missing.
    """
    path = as_path(path)
    if is_bucket(path):
        path.write_bytes(data)
        return
    make_folder(path.parent)
    # A name of its own: several processes may write one file, as the cache of images.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # Or a power cut may leave the new name on an empty file.
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def move_in(file: PathLike, path: PathLike) -> None:
    """Moves a finished local file to its place, on the same disk or in a bucket, whole at once."""
    path = as_path(path)
    if is_bucket(path):
        epath.Path(file).copy(path, overwrite=True)
        os.remove(file)
        return
    # As in `replace_bytes`: its content must be on the disk before its name.
    with open(file, "rb") as finished:
        os.fsync(finished.fileno())
    os.replace(file, path)


def duplicate(path: PathLike, other: PathLike) -> None:
    """Gives a file a second name: a hard link on a disk, a copy made by the service in a bucket."""
    path, other = as_path(path), as_path(other)
    if not is_bucket(path):
        os.link(path, other)
        return
    import fsspec

    fsspec.filesystem("gcs").cp_file(os.fspath(path), os.fspath(other))


def failures() -> tuple[type[Exception], ...]:
    """The exceptions that mean that a bucket cannot be reached, or refuses."""
    if "gcsfs" not in sys.modules:
        return ()
    import aiohttp
    import fsspec.exceptions
    import google.api_core.exceptions
    import google.auth.exceptions
    import requests
    from gcsfs.retry import HttpError

    return (
        aiohttp.ClientError,
        fsspec.exceptions.FSTimeoutError,
        google.api_core.exceptions.GoogleAPIError,
        google.auth.exceptions.GoogleAuthError,
        requests.RequestException,
        HttpError,
    )


def is_silent() -> bool:
    """Whether a bucket has stopped answering this process, so that `explained` has said so."""
    return _silent


@contextmanager
def explained(place: PathLike, advice: str) -> Iterator[None]:
    """Turns a full disk and a bucket that does not answer into a sentence; other errors pass.

    Args:
      place: the folder that the body works on.
      advice: what to do once there is space, or the bucket answers again.

    Raises:
      InputError: the disk is full or the bucket does not answer.
    """
    global _silent
    try:
        yield
    except failures() as error:
        _silent = True  # Nothing more is tried: each attempt would take half a minute.
        raise InputError(
            f"{place} cannot be reached ({_reason(error)}); check the network, the credentials "
            f"and the permissions on the bucket, then {advice}"
        ) from error
    except OSError as error:
        # gcsfs makes a plain OSError, without a number, of the answer 403.
        if is_bucket(place) and str(error).startswith("Forbidden"):
            raise InputError(
                f"{place} refuses access ({_reason(error)}); give this account the role Storage "
                f"Object Admin on the bucket, then {advice}"
            ) from error
        if error.errno not in FULL:
            raise
        raise InputError(
            f"{place} can take no more ({error.strerror}); free space, then {advice}"
        ) from error


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _open_buckets(path: str) -> None:
    """Before the first use of a bucket: chooses what etils and orbax read buckets with."""
    if importlib.util.find_spec("gcsfs") is None:
        raise InputError(
            f"{path} is in a bucket, and what reads buckets is not installed; run "
            "pip install 'podvision[gcs]'"
        )
    _configure_buckets()


@functools.cache
def _configure_buckets() -> None:
    import fsspec.config

    # One client for everything: etils would take TensorFlow's where that happens to be installed.
    os.environ["EPATH_USE_TF"] = "false"
    # Lists are asked for anew each time: another host, or another run, may have written meanwhile.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    if EMULATOR in os.environ:
        # Orbax reads arrays by TensorStore, which knows the emulator under another name.
        os.environ.setdefault("TENSORSTORE_GCS_HTTP_URL", os.environ[EMULATOR])
        # No emulator has the service that tells zonal buckets from others.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
