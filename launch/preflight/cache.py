"""Verdicts of the compiler, kept by the hash of the program: compiled once, known from then on.

The folder (`~/.cache/podvision/preflight`, or `preflight` in PODVISION_CACHE) may be deleted at any
time. An entry is written whole or not at all; one that cannot be read is passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from etils import epath

from training import storage
from training.errors import InputError
from training.local_copy import CACHE

# Of what is read from a compiled program; a change of its meaning needs a new number.
FORMAT = 1


def folder() -> epath.Path:
    """Where the entries lie."""
    return epath.Path(os.environ.get(CACHE, "~/.cache/podvision")).expanduser() / "preflight"


def program_key(lowered_text: str, topology: str, versions: dict[str, str]) -> str:
    """Hash of everything that decides what the compiler says."""
    facts = json.dumps([FORMAT, topology, sorted(versions.items())])
    return hashlib.sha256(f"{facts}\n{lowered_text}".encode()).hexdigest()[:32]


def read(key: str) -> tuple[dict[str, Any] | None, str | None]:
    """The figures of a program, or None; and a sentence about an entry that is damaged."""
    path = folder() / f"{key}.json"
    if not path.exists():
        return None, None
    try:
        entry = storage.read_json_object(path)
    except (InputError, OSError):
        return None, f"the cached verdict {path} is damaged and was not used"
    if entry.get("key") != key or not isinstance(entry.get("figures"), dict):
        return None, f"the cached verdict {path} is of another program and was not used"
    return entry["figures"], None


def write(key: str, figures: dict[str, Any]) -> str | None:
    """Keeps the figures of a program; a sentence where the folder cannot be written."""
    path = folder() / f"{key}.json"
    try:
        storage.replace_text(path, json.dumps({"key": key, "figures": figures}, indent=1))
    except OSError as error:
        return f"the verdict could not be kept in {path} ({error.strerror})"
    return None
