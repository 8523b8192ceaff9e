"""SuperSplat's compressed PLY: 16 bytes a Gaussian plus one byte a harmonic coefficient.

Gaussians are sorted along a Morton curve and cut into chunks of 256. Element `chunk` holds the
ranges of position, log-scale and color (18 floats); element `vertex` four packed words: position
11/10/11 bits, rotation 2 + 3 x 10 (smallest three of wxyz), scale 11/10/11, RGB and opacity 8 each;
element `sh` the rest of the harmonics as uchar, channel-major.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from splats.formats.cloud import GaussianCloud, logits, opacities
from splats.formats.harmonics import COUNTS
from splats.formats.morton import morton_order
from splats.formats.ply_container import read_ply, write_ply
from splats.formats.quaternions import drop_largest, restore_largest
from splats.gaussians.harmonic_basis import constant_to_rgb, rgb_to_constant
from training.errors import InputError

CHUNK = 256
_LARGEST_LOG_SCALE = 20.0  # one absurd Gaussian would take the steps of its whole chunk
_RANGES = ("", "scale_")
_CHUNK_FIELDS = tuple(
    f"{end}_{kind}{axis}" for kind in _RANGES for end in ("min", "max") for axis in "xyz"
)
_COLOR_FIELDS = tuple(f"{end}_{channel}" for end in ("min", "max") for channel in "rgb")
_WORDS = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
_BITS_111011, _BITS_8888 = (11, 10, 11), (8, 8, 8, 8)


def _pack(fractions: np.ndarray, bits: tuple[int, ...]) -> np.ndarray:
    """Words [N] uint32 of `fractions` [N,len(bits)] in [0,1], the first in the highest bits."""
    word = np.zeros(len(fractions), np.uint32)
    for column, width in zip(fractions.T, bits):
        largest = 2**width - 1
        code = np.clip(np.floor(column * largest + 0.5), 0, largest).astype(np.uint32)
        word = (word << np.uint32(width)) | code
    return word


def _unpack(word: np.ndarray, bits: tuple[int, ...]) -> np.ndarray:
    """Fractions [N,len(bits)] of words [N]."""
    columns = []
    for width in reversed(bits):
        columns.append((word & np.uint32(2**width - 1)) / (2**width - 1))
        word = word >> np.uint32(width)
    return np.stack(columns[::-1], axis=1)


def _chunked(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fractions of `values` [N,C] within their chunk's range, and the ranges [chunks,C] float32."""
    starts = np.arange(0, len(values), CHUNK)
    low = np.minimum.reduceat(values, starts, axis=0).astype(np.float32)
    high = np.maximum.reduceat(values, starts, axis=0).astype(np.float32)
    owner = np.arange(len(values)) // CHUNK
    span = (high - low)[owner]
    narrow = span < 1e-5  # a chunk of equal values: SuperSplat writes 0 as well
    fractions = (values - low[owner]) / np.where(narrow, 1, span)
    return np.where(narrow, 0, np.clip(fractions, 0, 1)), low, high


def write_compressed_ply(path: Path | str, cloud: GaussianCloud) -> None:
    """Writes `cloud` in Morton order; raises InputError for a cloud without Gaussians."""
    if not len(cloud):
        raise InputError(f"There is no Gaussian to write to {path}; train before exporting.")
    cloud = cloud.select(morton_order(cloud.means))
    position, *position_range = _chunked(cloud.means)
    bounded = np.clip(cloud.log_scales, -_LARGEST_LOG_SCALE, _LARGEST_LOG_SCALE)
    scale, *scale_range = _chunked(bounded)
    color, *color_range = _chunked(constant_to_rgb(cloud.harmonics[:, 0]))
    ranges = np.concatenate([*position_range, *scale_range, *color_range], axis=1)
    chunk = np.zeros(len(ranges), [(name, "<f4") for name in (*_CHUNK_FIELDS, *_COLOR_FIELDS)])
    for name, column in zip((*_CHUNK_FIELDS, *_COLOR_FIELDS), ranges.T):
        chunk[name] = column
    largest, others = drop_largest(cloud.quaternions)
    rgba = np.concatenate([color, opacities(cloud.opacity_logits)[:, None]], axis=1)
    vertex = np.zeros(len(cloud), [(name, "<u4") for name in _WORDS])
    vertex["packed_position"] = _pack(position, _BITS_111011)
    # From +-sqrt(1/2) to 0..1.
    turn = _pack(others * np.sqrt(0.5) + 0.5, (10, 10, 10))
    vertex["packed_rotation"] = turn | (largest.astype(np.uint32) << np.uint32(30))
    vertex["packed_scale"] = _pack(scale, _BITS_111011)
    vertex["packed_color"] = _pack(rgba, _BITS_8888)
    tables = {"chunk": chunk, "vertex": vertex}
    if cloud.degree:
        tables["sh"] = _harmonics_table(cloud)
    write_ply(path, tables)


def _harmonics_table(cloud: GaussianCloud) -> np.ndarray:
    rest = cloud.harmonics[:, 1:].transpose(0, 2, 1).reshape(len(cloud), -1)
    # Coefficients from -4 to 4 in steps of 1/32.
    codes = np.clip(np.trunc((rest / 8 + 0.5) * 256), 0, 255).astype(np.uint8)
    table = np.zeros(len(cloud), [(f"f_rest_{i}", "u1") for i in range(codes.shape[1])])
    for name, column in zip(table.dtype.names or (), codes.T):
        table[name] = column
    return table


def is_compressed(tables: dict[str, np.ndarray]) -> bool:
    """True when PLY tables have the compressed layout."""
    vertex = tables.get("vertex")
    return "chunk" in tables and vertex is not None and set(_WORDS) <= set(vertex.dtype.names or ())


def read_compressed_ply(path: Path | str) -> GaussianCloud:
    """Reads files with or without color ranges and harmonics; InputError for anything else."""
    tables = read_ply(path, allow_text=False)
    if not is_compressed(tables):
        raise InputError(f"{path} is not a compressed PLY: it lacks chunk or packed columns.")
    chunk, vertex = tables["chunk"], tables["vertex"]
    names = chunk.dtype.names or ()
    if not set(_CHUNK_FIELDS) <= set(names) or len(chunk) < -(-len(vertex) // CHUNK):
        raise InputError(f"{path} has too few chunks or chunk fields for {len(vertex)} Gaussians.")
    if any(vertex.dtype[word].kind != "u" or vertex.dtype[word].itemsize != 4 for word in _WORDS):
        raise InputError(f"{path} has packed columns that are not of type uint.")
    owner = np.arange(len(vertex)) // CHUNK

    def ranged(word: str, fields: tuple[str, ...], bits: tuple[int, ...]) -> np.ndarray:
        fractions = _unpack(vertex[word].astype(np.uint32), bits)[:, :3]
        low = np.stack([chunk[name].astype(np.float64) for name in fields[:3]], axis=1)[owner]
        high = np.stack([chunk[name].astype(np.float64) for name in fields[3:]], axis=1)[owner]
        return low * (1 - fractions) + high * fractions

    rgba = _unpack(vertex["packed_color"].astype(np.uint32), _BITS_8888)
    colored = set(_COLOR_FIELDS) <= set(names)
    color = ranged("packed_color", _COLOR_FIELDS, _BITS_8888) if colored else rgba[:, :3]
    turn = vertex["packed_rotation"].astype(np.uint32)
    others = (_unpack(turn, (10, 10, 10)) - 0.5) * np.sqrt(2)
    constant = rgb_to_constant(color)[:, None, :]
    return GaussianCloud.of(
        ranged("packed_position", _CHUNK_FIELDS[:6], _BITS_111011),
        ranged("packed_scale", _CHUNK_FIELDS[6:], _BITS_111011),
        restore_largest(turn >> np.uint32(30), others),
        logits(rgba[:, 3]),
        np.concatenate([constant, _harmonics(tables.get("sh"), len(vertex), path)], axis=1),
    )


def _harmonics(table: np.ndarray | None, count: int, path: Path | str) -> np.ndarray:
    """The coefficients above the constant, [N,K-1,3]."""
    if table is None:
        return np.zeros((count, 0, 3))
    names = [f"f_rest_{i}" for i in range(len(table.dtype.names or ()))]
    if set(names) != set(table.dtype.names or ()) or len(names) not in [
        3 * (k - 1) for k in COUNTS
    ]:
        raise InputError(f"{path} has an element sh with unexpected columns.")
    if len(table) != count or any(table.dtype[name] != np.uint8 for name in names):
        raise InputError(f"{path} has an element sh of another length or type than its vertices.")
    codes = np.stack([table[name] for name in names], axis=1).astype(np.float64)
    fractions = np.where(codes == 0, 0, np.where(codes == 255, 1, (codes + 0.5) / 256))
    return ((fractions - 0.5) * 8).reshape(count, 3, -1).transpose(0, 2, 1)
