"""glTF with the ratified extension KHR_gaussian_splatting, as one binary `.glb`. Lossless float32.

One POINTS primitive: POSITION, KHR_gaussian_splatting:ROTATION (xyzw), :SCALE (linear), :OPACITY
(0..1), :SH_DEGREE_d_COEF_n, and COLOR_0 for viewers without the extension. glTF is y up with z to
the front: a half turn about z from the axes of PLY files.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from splats.formats.byte_reader import ByteReader, read_whole
from splats.formats.cloud import GaussianCloud, half_turn, logits, opacities
from splats.formats.harmonics import COUNTS
from splats.formats.quaternions import normalized
from splats.gaussians.harmonic_basis import constant_to_rgb
from training.errors import InputError

_EXTENSION = "KHR_gaussian_splatting"
_HEADER, _CHUNK = struct.Struct("<4sII"), struct.Struct("<II")
# "JSON" and "BIN" as little-endian words; then OpenGL's numbers, which glTF uses.
_JSON, _BINARY = 0x4E4F534A, 0x004E4942
_FLOAT, _BYTE, _ARRAY_BUFFER = 5126, 5121, 34962
_WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}


def _coefficient_names(count: int) -> list[str]:
    names = [(d, n) for d in range(4) for n in range(2 * d + 1)][:count]
    return [f"{_EXTENSION}:SH_DEGREE_{degree}_COEF_{number}" for degree, number in names]


def _attributes(cloud: GaussianCloud) -> dict[str, np.ndarray]:
    color = np.clip(constant_to_rgb(cloud.harmonics[:, 0]), 0, 1)
    opacity = opacities(cloud.opacity_logits)
    rgba = np.rint(255 * np.concatenate([color, opacity[:, None]], axis=1)).astype(np.uint8)
    unit = normalized(cloud.quaternions)
    attributes = {
        "POSITION": cloud.means,
        "COLOR_0": rgba,
        f"{_EXTENSION}:ROTATION": np.roll(unit, -1, axis=1).astype("<f4"),
        f"{_EXTENSION}:SCALE": np.exp(np.clip(cloud.log_scales, -80, 80)).astype("<f4"),
        f"{_EXTENSION}:OPACITY": opacity.astype("<f4")[:, None],
    }
    names = _coefficient_names(cloud.harmonics.shape[1])
    return attributes | {name: cloud.harmonics[:, k] for k, name in enumerate(names)}


def write_glb(path: Path | str, cloud: GaussianCloud) -> None:
    """Writes `cloud`; raises InputError for a cloud without Gaussians, which glTF cannot hold."""
    if not len(cloud):
        raise InputError(f"There is no Gaussian to write to {path}; train before exporting.")
    attributes = _attributes(half_turn(cloud, 2))
    views, accessors, blocks, start = [], [], [], 0
    for name, array in attributes.items():
        block = np.ascontiguousarray(array).tobytes()
        views.append(
            {
                "buffer": 0,
                "byteOffset": start,
                "byteLength": len(block),
                "target": _ARRAY_BUFFER,
            }
        )
        accessors.append(_accessor(name, array, len(accessors)))
        # An accessor of floats must start at a multiple of 4 bytes.
        blocks.append(block + b"\0" * (-len(block) % 4))
        start += len(blocks[-1])
    document = {
        "asset": {"version": "2.0", "generator": "podvision"},
        "extensionsUsed": [_EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "buffers": [{"byteLength": start}],
        "bufferViews": views,
        "accessors": accessors,
        "meshes": [{"primitives": [_primitive(list(attributes))]}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    # Chunks are multiples of 4 bytes too; JSON is filled with spaces.
    text += b" " * (-len(text) % 4)
    chunks = [_CHUNK.pack(len(text), _JSON), text, _CHUNK.pack(start, _BINARY), *blocks]
    total = _HEADER.size + sum(len(chunk) for chunk in chunks)
    Path(path).write_bytes(b"".join([_HEADER.pack(b"glTF", 2, total), *chunks]))


def _accessor(name: str, array: np.ndarray, view: int) -> dict[str, Any]:
    kind = {width: label for label, width in _WIDTHS.items()}[array.shape[1]]
    accessor: dict[str, Any] = {
        "bufferView": view,
        "byteOffset": 0,
        "componentType": _BYTE if array.dtype == np.uint8 else _FLOAT,
        "count": len(array),
        "type": kind,
    }
    # glTF demands the bounds of positions, so that viewers can frame them unread.
    if name == "POSITION":
        accessor |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
    if array.dtype == np.uint8:
        accessor["normalized"] = True
    return accessor


def _primitive(names: list[str]) -> dict[str, Any]:
    return {
        "mode": 0,
        "attributes": {name: index for index, name in enumerate(names)},
        "extensions": {
            _EXTENSION: {
                "kernel": "ellipse",
                "colorSpace": "srgb_rec709_display",
                "sortingMethod": "cameraDistance",
                "projection": "perspective",
            }
        },
    }


def read_glb(path: Path | str) -> GaussianCloud:
    """Reads the first Gaussian primitive of a `.glb` with float32 attributes; node poses are not
    applied. Raises InputError for anything else."""
    document, binary = _chunks(Path(path))
    try:
        primitives = [p for mesh in document["meshes"] for p in mesh["primitives"]]
        primitive = next(p for p in primitives if _EXTENSION in p.get("extensions", {}))
        attributes = dict(primitive["attributes"])
    except (KeyError, TypeError, AttributeError, StopIteration, ValueError) as error:
        raise InputError(f"{path} has no primitive with {_EXTENSION}.") from error

    def array(name: str, kind: str) -> np.ndarray:
        return _read_accessor(document, binary, attributes.get(name), kind, f"{name} of {path}")

    count = max(k for k in COUNTS if set(_coefficient_names(k)) <= {*attributes} or k == 1)
    harmonics = [array(name, "VEC3") for name in _coefficient_names(count)]
    parts = [
        array("POSITION", "VEC3"),
        array(f"{_EXTENSION}:SCALE", "VEC3"),
        array(f"{_EXTENSION}:ROTATION", "VEC4"),
        array(f"{_EXTENSION}:OPACITY", "SCALAR"),
    ]
    if len({len(part) for part in (*parts, *harmonics)}) != 1:
        raise InputError(f"{path} has Gaussian attributes of different lengths.")
    means, scales, turns, opacity = parts
    with np.errstate(divide="ignore", invalid="ignore"):
        # The sign of a size does not change its Gaussian.
        sizes = np.maximum(np.log(np.abs(scales.astype(np.float64))), -80)
    alpha = np.clip(opacity[:, 0].astype(np.float64), 0, 1)
    cloud = GaussianCloud.of(
        means,
        sizes,
        np.roll(turns, 1, axis=1),
        _exact_logits(alpha),
        np.stack(harmonics, axis=1),
    )
    return half_turn(cloud, 2)


def _exact_logits(alpha: np.ndarray) -> np.ndarray:
    """Logits of float32 opacities; only 0 and 1 themselves fall back to the 8-bit ends."""
    inside = (alpha > 0) & (alpha < 1)
    safe = np.where(inside, alpha, 0.5)
    return np.where(inside, np.log(safe) - np.log1p(-safe), logits(alpha))


def _chunks(path: Path) -> tuple[dict, bytes]:
    """The JSON document and the binary chunk."""
    reader = ByteReader(read_whole(path), str(path))
    magic, version, _ = reader.take(_HEADER, "the header")
    if magic != b"glTF" or version != 2:
        raise InputError(f"{path} is not a binary glTF 2 file.")
    found: dict[int, bytes] = {}
    while reader.remaining >= _CHUNK.size:
        length, kind = reader.take(_CHUNK, "a chunk header")
        found.setdefault(kind, reader.take_array("u1", length, "a chunk").tobytes())
    try:
        document = json.loads(found.get(_JSON, b"").decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} has no readable JSON chunk ({error}).") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} has a JSON chunk that is not an object.")
    return document, found.get(_BINARY, b"")


def _read_accessor(document: dict, binary: bytes, index: Any, kind: str, what: str) -> np.ndarray:
    """[count,width] float32 of a tightly packed float accessor."""
    try:
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        start = int(view.get("byteOffset", 0)) + int(accessor.get("byteOffset", 0))
        count, width = int(accessor["count"]), _WIDTHS[kind]
        plain = accessor["componentType"] == _FLOAT and accessor["type"] == kind
        plain &= view.get("byteStride", 4 * width) == 4 * width and "sparse" not in accessor
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, OverflowError) as error:
        raise InputError(f"{what} has no readable accessor.") from error
    if not plain or start < 0 or count < 0:
        raise InputError(f"{what} is not a plain float {kind} accessor.")
    if start + 4 * count * width > len(binary):
        raise InputError(f"{what} reaches beyond the binary chunk; the file is cut off.")
    return np.frombuffer(binary, "<f4", count * width, start).reshape(count, width)
