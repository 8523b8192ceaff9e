"""OCT volumes: reading them, preparing them once into records, and serving them to training.

Public names are loaded on first use, so that a command line can be parsed without numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jepa3d.data.reader import read_volume as read_volume
    from jepa3d.data.source import VolumeSource as VolumeSource
    from jepa3d.data.volume import SkipReason as SkipReason
    from jepa3d.data.volume import SkipVolume as SkipVolume
    from jepa3d.data.volume import Volume as Volume

_HOMES = {
    "read_volume": "reader",
    "SkipReason": "volume",
    "SkipVolume": "volume",
    "Volume": "volume",
    "VolumeSource": "source",
}


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"jepa3d.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'jepa3d.data' has no attribute {name!r}")
