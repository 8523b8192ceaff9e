"""Niantic's `.spz`: fixed-point Gaussians, about a tenth of a PLY. Writes v3 or v4, reads v1 to v4.

Versions 1-3 are one gzip stream (or bare): 16-byte header, then the six streams of `spz_codes`.
Version 4 has a 32-byte header, a table of (packed, raw) sizes and each stream as a zstd frame;
streams without bytes are left out. Axes in the file are right, up, back; ours (as in PLY) are
right, down, front: a half turn about x.
Source: the format description in nianticlabs/spz.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from splats.formats.byte_reader import ByteReader, read_whole
from splats.formats.cloud import GaussianCloud, half_turn
from splats.formats.harmonics import COUNTS
from splats.formats.spz_codes import EXTENT, FRACTION_BITS, STREAMS, decode, encode, stream_sizes
from splats.formats.zstd import compress, decompress, require_zstd
from training.errors import ConfigError, InputError

WRITTEN_VERSIONS = (3, 4)
_MAGIC = b"NGSP"
_HEADER = struct.Struct("<4sIIBBBB")
_HEADER_4 = struct.Struct("<4sIIBBBBI12x")
_STREAM = struct.Struct("<QQ")
_FLAG_EXTENSIONS = 2
_MOST_POINTS = 100_000_000  # bounds what a damaged header can make `decompress` allocate


def write_spz(path: Path | str, cloud: GaussianCloud, version: int = 3) -> None:
    """Writes version 3 or 4.

    Raises:
      ConfigError: another version.
      InputError: a mean is beyond the +-2048 units that 24 bits hold, or no Zstandard (see `zstd`).
    """
    check_version(version)
    if len(cloud) and np.abs(cloud.means).max() >= EXTENT:
        raise InputError(
            f"A Gaussian lies {np.abs(cloud.means).max():.0f} units from the origin and .spz holds "
            f"{EXTENT}; remove it or export a PLY."
        )
    streams = encode(half_turn(cloud, 0))
    common = (_MAGIC, version, len(cloud), cloud.degree, FRACTION_BITS, 0)
    if version == 3:
        content = b"".join([_HEADER.pack(*common, 0), *streams])
        # A fixed time stamp makes equal clouds equal files.
        data = gzip.compress(content, mtime=0)
    else:
        # A cloud of degree 0 has five streams, an empty one of any degree none.
        streams = [stream for stream in streams if stream]
        frames = [compress(stream) for stream in streams]
        table = [_STREAM.pack(len(f), len(s)) for f, s in zip(frames, streams)]
        header = _HEADER_4.pack(*common, len(streams), _HEADER_4.size)
        data = b"".join([header, *table, *frames])
    Path(path).write_bytes(data)


def check_version(version: int) -> None:
    """Raises ConfigError for a version that is not written, InputError for one that needs more."""
    if version not in WRITTEN_VERSIONS:
        raise ConfigError(f"version {version} of .spz is not written; use 3 or 4")
    if version == 4:
        require_zstd("version 4 of .spz")


def read_spz(path: Path | str) -> GaussianCloud:
    """Reads versions 1 to 4.

    Raises:
      InputError: damage, or extensions, which may change the meaning of the rest, or version 4
        without Zstandard (see `zstd`).
    """
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
        *_, count, degree, bits, flags, entries, table = reader.take(_HEADER_4, "the header")
    else:
        *_, count, degree, bits, flags, entries = reader.take(_HEADER, "the header")
        table = _HEADER.size
    if degree >= len(COUNTS) or bits > 23 or count > _MOST_POINTS:
        raise InputError(
            f"{path} has {count} Gaussians of degree {degree} with {bits} fraction bits, which is "
            "beyond what is read here; convert it to PLY."
        )
    if flags & _FLAG_EXTENSIONS:
        raise InputError(f"{path} uses .spz extensions; convert it to PLY with its own tools.")
    sizes = stream_sizes(version, count, COUNTS[degree])
    if version == 4:
        streams = _frames(reader, sizes, entries, table, path)
    else:
        streams = [reader.take_array("u1", size, name) for size, name in zip(sizes, STREAMS)]
    return half_turn(decode(streams, version, count, bits, COUNTS[degree]), 0)


def _frames(
    reader: ByteReader, sizes: list[int], entries: int, table: int, path: Path | str
) -> list[np.ndarray]:
    """The six streams of version 4, from the table of `entries` sizes at byte `table`."""
    if not _HEADER_4.size <= table <= len(reader.data):
        raise InputError(f"{path} has its table of streams at byte {table}, outside of the file.")
    reader.position = table
    spans = [reader.take(_STREAM, f"entry of stream {index}") for index in range(entries)]
    present = [index for index, size in enumerate(sizes) if size]
    spans = [span for span in spans if span[1]]
    if [raw for _, raw in spans] != [sizes[index] for index in present]:
        found = ", ".join(str(raw) for _, raw in spans) or "none"
        raise InputError(
            f"{path} has streams of {found} bytes, expected "
            f"{', '.join(str(sizes[index]) for index in present) or 'none'}; it is damaged."
        )
    result = [np.zeros(0, np.uint8)] * len(sizes)
    for (packed, raw), index in zip(spans, present):
        frame = reader.take_array("u1", packed, STREAMS[index]).tobytes()
        content = decompress(frame, raw, f"stream of {STREAMS[index]}", path)
        result[index] = np.frombuffer(content, np.uint8)
    return result
