"""Reading captures and preparing scenes: COLMAP, nerfstudio and Blender data sets.

Start at `load_scene`; the names below are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

# Name -> module that has it: `import splats.data` must not read Pillow, scipy and all formats.
_HOMES = {
    "Scene": "scene",
    "SceneReport": "scene",
    "load_scene": "scene",
    "Split": "splits",
    "SplitConfig": "splits",
    "make_split": "splits",
    "Capture": "capture",
    "View": "capture",
    "read_capture": "capture_reader",
    "neighbor_distances": "starting_geometry",
    "random_points": "starting_geometry",
    "random_blender_points": "starting_geometry",
}


def __dir__() -> list[str]:
    return sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
