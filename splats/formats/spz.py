"""Niantic's `.spz`: fixed-point Gaussians, about a tenth of a PLY. Writes v3, reads v1 to v4.

Versions 1-3 are one gzip stream (or bare): 16-byte header, then for all Gaussians positions (24-bit
fixed point; half floats in v1), opacities, colours, log-scales, rotations, harmonics (by
coefficient, RGB together). v4 has a 32-byte header and those six in zstd streams.
Axes in the file are right, up, back; ours (as in PLY) are right, down, front: a half turn about x.
Source: the format description in nianticlabs/spz.
"""

from __future__ import annotations

import gzip
import importlib
import struct
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np

from splats.byte_reader import ByteReader, read_whole
from splats.formats.cloud import GaussianCloud, half_turn, logits, opacities
from splats.formats.harmonics import COUNTS
from splats.formats.quaternions import drop_largest, normalised, restore_largest
from training.errors import InputError

_MAGIC = b"NGSP"
_HEADER = struct.Struct("<4sIIBBBB")
_HEADER_4 = struct.Struct("<4sIIBBBBI12x")
_STREAM = struct.Struct("<QQ")
_FRACTION_BITS = 12
_COLOUR_SCALE = 0.15
_FLAG_EXTENSIONS = 2
_MOST_POINTS = 100_000_000
_EXTENT = 2 ** (23 - _FRACTION_BITS)


def write_spz(path: Path | str, cloud: GaussianCloud) -> None:
    """Writes version 3; InputError when a mean is beyond the +-2048 units that 24 bits hold."""
    if len(cloud) and np.abs(cloud.means).max() >= _EXTENT:
        raise InputError(
            f"A Gaussian lies {np.abs(cloud.means).max():.0f} units from the origin and .spz holds "
            f"{_EXTENT}; remove it or export a PLY."
        )
    cloud = half_turn(cloud, 0)
    scaled = cloud.means.astype(np.float64) * 2**_FRACTION_BITS
    fixed = np.trunc(scaled + np.copysign(0.5, scaled)).astype("<i4")  # halves away from zero
    positions = fixed.reshape(-1, 1).view(np.uint8)[:, :3]
    parts = [
        _HEADER.pack(_MAGIC, 3, len(cloud), cloud.degree, _FRACTION_BITS, 0, 0),
        positions.tobytes(),
        _byte(255 * opacities(cloud.opacity_logits)),
        _byte(cloud.harmonics[:, 0] * (_COLOUR_SCALE * 255) + 127.5),
        _byte((cloud.log_scales + 10) * 16),
        _pack_rotations(cloud.quaternions).tobytes(),
        _pack_harmonics(cloud.harmonics[:, 1:]),
    ]
    # A fixed time stamp makes equal clouds equal files.
    Path(path).write_bytes(gzip.compress(b"".join(parts), mtime=0))


def _byte(values: np.ndarray) -> bytes:
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8).tobytes()


def _pack_rotations(quaternions: np.ndarray) -> np.ndarray:
    """Words [N] uint32: index of the largest of xyzw, then sign and 9 bits of the other three."""
    largest, others = drop_largest(np.roll(quaternions, -1, axis=1))
    code = largest.astype(np.uint32)
    for column in others.T:
        magnitude = np.floor(511 * np.abs(column) / np.sqrt(0.5) + 0.5).astype(np.uint32)
        sign = (column < 0).astype(np.uint32)
        code = (code << np.uint32(10)) | (sign << np.uint32(9)) | np.minimum(magnitude, 511)
    return code.astype("<u4")


def _unpack_rotations(code: np.ndarray) -> np.ndarray:
    columns = []
    for shift in (20, 10, 0):
        magnitude = ((code >> np.uint32(shift)) & np.uint32(511)) / 511 * np.sqrt(0.5)
        negative = (code >> np.uint32(shift + 9)) & np.uint32(1)
        columns.append(np.where(negative, -magnitude, magnitude))
    xyzw = restore_largest(code >> np.uint32(30), np.stack(columns, axis=1))
    return np.roll(xyzw, 1, axis=1)


def _pack_harmonics(rest: np.ndarray) -> bytes:
    """Steps of 1/128, grouped to 5 bits for degree 1 and 4 bits above; 0 stays exactly 0."""
    bucket = np.where(np.arange(rest.shape[1]) < 3, 8, 16)[None, :, None]
    code = np.floor(rest * 128.0 + 0.5) + 128
    code = np.floor((code + bucket // 2) / bucket) * bucket
    return np.clip(code, 0, 255).astype(np.uint8).tobytes()


def read_spz(path: Path | str) -> GaussianCloud:
    """Reads versions 1 to 4; InputError for damage, extensions and, in v4, a missing zstandard."""
    data = read_whole(Path(path))
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path} has a damaged gzip stream ({error}).") from error
    reader = ByteReader(data, str(path))
    magic, version = reader.take(struct.Struct("<4sI"), "the header")
    if magic != _MAGIC or not 1 <= version <= 4:
        raise InputError(f"{path} is not a .spz file of version 1 to 4.")
    reader.position = 0
    if version == 4:
        *_, count, degree, bits, flags, _, _ = reader.take(_HEADER_4, "the header")
    else:
        *_, count, degree, bits, flags, _ = reader.take(_HEADER, "the header")
    if degree >= len(COUNTS) or bits > 23 or count > _MOST_POINTS:
        raise InputError(
            f"{path} has {count} Gaussians of degree {degree} with {bits} fraction bits, which is "
            "beyond what is read here; convert it to PLY."
        )
    if version < 4 and flags & _FLAG_EXTENSIONS:
        raise InputError(f"{path} uses .spz extensions; convert it to PLY with its own tools.")
    sizes = _stream_sizes(version, count, COUNTS[degree])
    streams = _streams_4(data, sizes, path) if version == 4 else _split(reader, sizes)
    return half_turn(_decode(streams, version, count, bits, COUNTS[degree]), 0)


def _stream_sizes(version: int, count: int, coefficients: int) -> list[int]:
    """Bytes of positions, opacities, colours, scales, rotations and harmonics."""
    per_point = (6 if version == 1 else 9, 1, 3, 3, 4 if version >= 3 else 3)
    return [count * size for size in (*per_point, 3 * (coefficients - 1))]


def _split(reader: ByteReader, sizes: list[int]) -> list[np.ndarray]:
    names = ("positions", "opacities", "colours", "scales", "rotations", "harmonics")
    return [reader.take_array("u1", size, name) for size, name in zip(sizes, names)]


def _zstandard(path: Path | str) -> ModuleType:
    try:
        return importlib.import_module("zstandard")
    except ImportError as error:
        raise InputError(
            f"{path} is .spz version 4, which needs the Python package zstandard; install it, or "
            "convert the file to version 3."
        ) from error


def _streams_4(data: bytes, sizes: list[int], path: Path | str) -> list[np.ndarray]:
    reader = ByteReader(data, str(path))
    *_, streams, table = reader.take(_HEADER_4, "the header")
    if table > len(data) or streams < sum(size > 0 for size in sizes):
        raise InputError(f"{path} has a damaged table of streams.")
    reader.position = table
    spans = [reader.take(_STREAM, f"entry of stream {index}") for index in range(streams)]
    zstandard = _zstandard(path)
    result = []
    for index, size in enumerate(sizes):
        if index >= len(spans) or size == 0:
            result.append(np.zeros(0, np.uint8))
            continue
        packed = reader.take_array("u1", spans[index][0], f"stream {index}").tobytes()
        try:
            raw = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
        except zstandard.ZstdError as error:
            raise InputError(f"{path} has a damaged stream {index} ({error}).") from error
        if len(raw) != size:
            raise InputError(f"{path}: stream {index} has {len(raw)} bytes, expected {size}.")
        result.append(np.frombuffer(raw, np.uint8))
    return result


def _decode(
    streams: list[np.ndarray], version: int, count: int, bits: int, coefficients: int
) -> GaussianCloud:
    positions, alphas, colours, scales, rotations, rest = streams
    if version == 1:
        means = positions.view("<f2").astype(np.float64).reshape(count, 3)
    else:
        padded = np.zeros((3 * count, 4), np.uint8)
        padded[:, 1:] = positions.reshape(-1, 3)
        # The three bytes sit in the upper ones: the arithmetic shift extends the sign.
        means = (padded.view("<i4").reshape(count, 3) >> 8) / 2.0**bits
    if version >= 3:
        quaternions = _unpack_rotations(rotations.view("<u4"))
    else:
        xyz = rotations.reshape(count, 3) / 127.5 - 1
        w = np.sqrt(np.maximum(0, 1 - np.sum(xyz * xyz, axis=1, keepdims=True)))
        quaternions = normalised(np.concatenate([w, xyz], axis=1))
    constant = (colours.reshape(count, 1, 3) / 255.0 - 0.5) / _COLOUR_SCALE
    higher = (rest.reshape(count, coefficients - 1, 3).astype(np.float64) - 128) / 128
    return GaussianCloud.of(
        means,
        scales.reshape(count, 3) / 16.0 - 10,
        quaternions,
        logits(alphas / 255.0),
        np.concatenate([constant, higher], axis=1),
    )
