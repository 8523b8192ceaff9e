"""Arrays of an .npz file, which never runs code of its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from training.errors import InputError


def read_arrays(path: Path, wanted: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """All arrays by name.

    Args:
      wanted: names that must be among them.

    Raises:
      InputError: the file is missing, damaged or made of objects, or lacks a name.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            held = dict(file)
    except FileNotFoundError:
        raise InputError(f"there is no {path}; check the path, or copy it again") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is no readable .npz file ({error}); copy it again") from None
    missing = [name for name in wanted if name not in held]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}; write it again")
    return held
