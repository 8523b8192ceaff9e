"""The PLY layout of INRIA's 3D Gaussian Splatting, the common exchange format. Lossless float32.

Properties: x y z [nx ny nz] f_dc_0..2 f_rest_0.. opacity scale_0..2 rot_0..3, all before
activation. f_rest is channel-major: all red coefficients, then green, then blue. rot is wxyz.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from splats.formats.cloud import GaussianCloud
from splats.formats.harmonics import COUNTS
from splats.formats.ply_container import read_ply, write_ply
from training.errors import InputError

_REQUIRED = (
    *"xyz",
    *(f"f_dc_{i}" for i in range(3)),
    "opacity",
    *(f"scale_{i}" for i in range(3)),
    *(f"rot_{i}" for i in range(4)),
)
_NORMALS = ("nx", "ny", "nz")  # part of the layout, without meaning
_MOST_REST = 3 * (max(COUNTS) - 1)


def write_inria_ply(path: Path | str, cloud: GaussianCloud, *, normals: bool = True) -> None:
    """Writes `cloud`; `normals` adds the zero normals that some old readers ask for."""
    rest = cloud.harmonics[:, 1:].transpose(0, 2, 1)
    # Not -1, which numpy cannot resolve for a cloud without Gaussians.
    rest = rest.reshape(len(cloud), 3 * rest.shape[2])
    columns = dict(zip("xyz", cloud.means.T))
    if normals:
        columns |= dict.fromkeys(("nx", "ny", "nz"), np.zeros(len(cloud), np.float32))
    columns |= {f"f_dc_{i}": cloud.harmonics[:, 0, i] for i in range(3)}
    columns |= {f"f_rest_{i}": column for i, column in enumerate(rest.T)}
    columns["opacity"] = cloud.opacity_logits
    columns |= {f"scale_{i}": column for i, column in enumerate(cloud.log_scales.T)}
    columns |= {f"rot_{i}": column for i, column in enumerate(cloud.quaternions.T)}
    table = np.zeros(len(cloud), [(name, "<f4") for name in columns])
    for name, column in columns.items():
        table[name] = column
    write_ply(path, {"vertex": table})


def read_inria_ply(path: Path | str, *, strict: bool = False) -> GaussianCloud:
    """Reads any order of the properties, with or without normals.

    Args:
      strict: refuse tables and properties that the layout does not know, instead of ignoring them.

    Raises InputError for text files, missing properties and cut-off files.
    """
    tables = read_ply(path, allow_text=False)
    if strict:
        _refuse_unknown(path, tables)
    vertex = tables.get("vertex")
    names = () if vertex is None else vertex.dtype.names or ()
    if vertex is None or not names:
        raise InputError(
            f"{path} has no vertices or lists in them; give a Gaussian splat PLY, a plain table."
        )
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        raise InputError(
            f"{path} lacks the properties {', '.join(missing)}; it is not a Gaussian splat PLY."
        )
    count = sum(name.startswith("f_rest_") for name in names)
    if count not in [3 * (k - 1) for k in COUNTS]:
        raise InputError(f"{path} has {count} f_rest properties; 0, 9, 24 or 45 are possible.")
    absent = [i for i in range(count) if f"f_rest_{i}" not in names]
    if absent:
        raise InputError(f"{path} lacks f_rest_{absent[0]}; number them from 0 without gaps.")

    def columns(prefix: str, numbers: int) -> np.ndarray:
        table = [vertex[f"{prefix}{i}"] for i in range(numbers)]
        return np.stack(table, axis=1) if table else np.zeros((len(vertex), 0), np.float32)

    rest = columns("f_rest_", count).reshape(len(vertex), 3, count // 3).transpose(0, 2, 1)
    return GaussianCloud.of(
        np.stack([vertex[axis] for axis in "xyz"], axis=1),
        columns("scale_", 3),
        columns("rot_", 4),
        vertex["opacity"],
        np.concatenate([columns("f_dc_", 3)[:, None, :], rest], axis=1),
    )


def _refuse_unknown(path: Path | str, tables: dict[str, np.ndarray]) -> None:
    """Raises InputError where a part of the file would not be used."""
    others = [name for name in tables if name != "vertex"]
    known = {*_REQUIRED, *_NORMALS, *(f"f_rest_{i}" for i in range(_MOST_REST))}
    dtype = tables["vertex"].dtype if "vertex" in tables else np.dtype([])
    unknown = [name for name in dtype.names or () if name not in known]
    if others or unknown:
        listed = ", ".join([f"element {name}" for name in others] + unknown[:8])
        raise InputError(
            f"{path} holds what no Gaussian splat PLY has ({listed}); export it again as plain "
            "PLY, not compressed"
        )
    whole = [name for name in dtype.names or () if dtype[name].kind != "f"]
    if whole:
        raise InputError(f"{path} stores {whole[0]} as {dtype[whole[0]]}; floats are needed.")
