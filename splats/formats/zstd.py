"""Zstandard, by the standard library (Python 3.14) or the optional package `zstandard`."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from training.errors import InputError

LEVEL = 12  # of 22; higher ones save less than 1 % of a file of Gaussians
MODULES = ("compression.zstd", "zstandard")


def require_zstd(subject: str) -> ModuleType:
    """The first of MODULES that is installed; both raise `ZstdError` for damaged data.

    Raises:
      InputError: neither is, which `subject` would need.
    """
    for name in MODULES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise InputError(
        f"{subject} needs Zstandard, which Python has from 3.14 on; install the package zstandard "
        "(pip install 'podvision[spz]') or use version 3"
    )


def compress(data: bytes) -> bytes:
    """One frame that states its content size."""
    module = require_zstd("version 4 of .spz")
    if module.__name__ == "zstandard":
        return module.ZstdCompressor(level=LEVEL).compress(data)
    return module.compress(data, level=LEVEL)


def decompress(data: bytes, size: int, name: str, path: Path | str) -> bytes:
    """The `size` bytes in a frame; never allocates more, whatever the frame claims.

    Raises:
      InputError: `name` of `path` is damaged or of another size, or there is no Zstandard here.
    """
    module = require_zstd(f"{path} of version 4")
    # One byte more than expected is asked for: it shows a frame that holds too much.
    try:
        if module.__name__ == "zstandard":
            with module.ZstdDecompressor().stream_reader(data) as stream:
                raw = stream.read(size + 1)
        else:
            raw = module.ZstdDecompressor().decompress(data, size + 1)
    except (module.ZstdError, EOFError) as error:
        raise InputError(f"{path} has a damaged {name} ({error}).") from error
    if len(raw) != size:
        found = f"more than {size}" if len(raw) > size else len(raw)
        raise InputError(f"{path}: {name} has {found} bytes, expected {size}.")
    return raw
