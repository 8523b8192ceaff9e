"""Reading and writing safetensors files with numpy alone.

A file is an 8-byte little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}
and the raw row-major bytes; offsets count from the end of the header.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np

from training.errors import CheckpointError

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
MAX_HEADER_BYTES = 100 * 2**20  # about the limit of the reference implementation


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a file by name, as copies of what is on disk.

    Raises:
      CheckpointError: the file is missing, damaged, cut short or has an unknown dtype.
    """
    if not path.is_file():
        raise CheckpointError(f"no weight file at {path}; check the path")
    data = path.read_bytes()
    header, start = _header(path, data)
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise CheckpointError(
                f"{path}: tensor {name} has dtype {entry['dtype']}, which is not supported; "
                "save it as F32"
            )
        first, last = (start + offset for offset in entry["data_offsets"])
        count = int(np.prod(entry["shape"], dtype=np.int64))
        if not start <= first <= last <= len(data) or last - first != count * dtype.itemsize:
            raise CheckpointError(f"{path}: tensor {name} lies outside the file; copy it again")
        # Copied, because the view is read-only and would keep the whole file in memory.
        values = np.frombuffer(data, dtype, count=count, offset=first)
        tensors[name] = values.reshape(entry["shape"]).copy()
    return tensors


def _header(path: Path, data: bytes) -> tuple[dict, int]:
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else MAX_HEADER_BYTES + 1
    if length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise CheckpointError(f"{path} is no complete safetensors file; copy it again")
    try:
        return json.loads(data[8 : 8 + length]), 8 + length
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} has an unreadable header ({error}); copy it again") from None


def write_safetensors(
    path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None
) -> None:
    """Writes tensors in name order; the same tensors give the same bytes.

    Args:
      metadata: text about the file, stored in its header under `__metadata__`.

    Raises:
      CheckpointError: a dtype that the format does not have.
    """
    header: dict = {"__metadata__": metadata} if metadata else {}
    chunks, offset = [], 0
    for name in sorted(tensors):
        array = np.asarray(tensors[name])
        if array.dtype not in _NAMES:
            raise CheckpointError(f"tensor {name} has dtype {array.dtype}; cast it to float32")
        raw = array.tobytes()
        end = offset + len(raw)
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        chunks.append(raw)
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    # Blanks, which JSON ignores, so that the tensors begin at a multiple of 8 bytes.
    encoded += b" " * (-len(encoded) % 8)
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + b"".join(chunks))
