"""Where the data of a run lies: a folder as given, or under the one that PODVISION_DATA names."""

from __future__ import annotations

import os
from pathlib import Path

from training.errors import ConfigError


def data_folder(path: str, key: str, advice: str) -> Path:
    """The folder of a config's path.

    Args:
      key: of the config, such as `scene.path`, for the error.
      advice: what the folder has to be, for the error: "give the folder of ...".

    Raises:
      ConfigError: it is in neither place.
    """
    direct = Path(path).expanduser()
    if direct.is_dir():
        return direct
    root = os.environ.get("PODVISION_DATA")
    if root and (Path(root) / path).is_dir():
        return Path(root) / path
    where = f"nor under PODVISION_DATA = {root}" if root else "and PODVISION_DATA is not set"
    raise ConfigError(f"config.{key} = {path!r} is no folder here {where}; {advice}")
