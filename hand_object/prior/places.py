"""Where priors lie on the disk, told without loading any network."""

from __future__ import annotations

from pathlib import Path

from training.errors import ConfigError

MINI = "mini"
EMBEDDED = {MINI: Path(__file__).parent / "weights" / "mini.safetensors"}
FILE = "prior.safetensors"  # in the folder of an import


def prior_path(source: str) -> Path:
    """The file of a prior by the name of an embedded one, its path, or an import's folder.

    Raises:
      ConfigError: there is none.
    """
    path = EMBEDDED.get(source, Path(source))
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise ConfigError(
            f"there is no prior at {path}; name one of {', '.join(EMBEDDED)}, a file, or the "
            "folder of podvision import hand_object"
        )
    return path
