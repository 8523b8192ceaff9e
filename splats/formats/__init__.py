"""Files of Gaussians. `write_cloud` and `read_cloud` choose the format by the file name."""

from __future__ import annotations

from pathlib import Path

from splats.formats.antimatter_splat import read_splat, write_splat
from splats.formats.cloud import (
    CleanedCloud,
    GaussianCloud,
    clean,
    transform,
)
from splats.formats.compressed_ply import is_compressed, read_compressed_ply, write_compressed_ply
from splats.formats.gltf import read_glb, write_glb
from splats.formats.inria_ply import read_inria_ply, write_inria_ply
from splats.formats.ply_container import read_ply
from splats.formats.spz import read_spz, write_spz
from training.errors import ConfigError

# The first ending that fits counts, so ".compressed.ply" comes before ".ply".
FORMATS = {
    ".compressed.ply": write_compressed_ply,
    ".ply": write_inria_ply,
    ".splat": write_splat,
    ".spz": write_spz,
    ".glb": write_glb,
}

__all__ = [
    "FORMATS",
    "CleanedCloud",
    "GaussianCloud",
    "clean",
    "read_cloud",
    "transform",
    "write_cloud",
]


def _suffix(path: Path | str) -> str:
    for suffix in FORMATS:
        if str(path).lower().endswith(suffix):
            return suffix
    raise ConfigError(f"{path} has no known splat format; choose one of {', '.join(FORMATS)}.")


def write_cloud(path: Path | str, cloud: GaussianCloud) -> None:
    """Writes `cloud` (finite rows only: see `clean`) in the format that `path` ends in.

    Raises ConfigError for an unknown ending.
    """
    FORMATS[_suffix(path)](path, cloud)


def read_cloud(path: Path | str) -> GaussianCloud:
    """Reads a cloud by the ending of `path`; both PLY layouts are recognized by their contents."""
    suffix = _suffix(path)
    if suffix.endswith(".ply"):
        compressed = is_compressed(read_ply(path, allow_text=False))
        return read_compressed_ply(path) if compressed else read_inria_ply(path)
    return {".splat": read_splat, ".spz": read_spz, ".glb": read_glb}[suffix](path)
