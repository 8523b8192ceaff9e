"""Arrays of a PyTorch file (`.pth`), read without PyTorch and without running what it asks for.

The file is a ZIP archive: `*/data.pkl`, a pickle whose tensors refer to storages, and
`*/data/<key>`, their raw bytes. A pickle may name any function of the machine; here it may name
tensors, their storages and plain containers, and is refused otherwise. Objects of packages that a
caller names become empty `Inert` ones: nothing of those packages is imported or run.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from training.errors import CheckpointError

_STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
# Types that checkpoints name in the settings that they carry; none runs anything.
_TYPES = {kind.__name__: kind for kind in (dict, list, tuple, set, int, float, bool, str)}
AGAIN = "save the state dict alone with torch.save and give that file"


class _Storage(NamedTuple):
    """A storage by its kind, before its bytes are asked for."""

    dtype: np.dtype


class Inert:
    """Stands for an object of a package that is not trusted; takes whatever a pickle gives it."""

    def __init__(self, *arguments: Any, **named: Any):
        del arguments, named

    def __setstate__(self, state: Any) -> None:
        del state

    def __setitem__(self, key: Any, value: Any) -> None:
        del key, value

    def append(self, value: Any) -> None:
        del value

    def extend(self, values: Any) -> None:
        del values


def read_torch_file(path: Path, inert: Collection[str] = ()) -> Any:
    """What the file holds: containers, numbers, text, and arrays for tensors.

    Args:
      inert: packages whose objects may occur; they become `Inert`.

    Raises:
      CheckpointError: no such file, another format, damage, or a pickle that asks for more.
    """
    if not path.is_file():
        raise CheckpointError(f"no weight file at {path}; check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickled) != 1:
                raise CheckpointError(f"{path} is no file of torch.save; {AGAIN}")
            folder = pickled[0].removesuffix("data.pkl")
            return _Reader(archive, folder, inert).load()
    except zipfile.BadZipFile:
        raise CheckpointError(
            f"{path} is no file of torch.save of PyTorch 1.6 or newer, or is cut short; {AGAIN}"
        ) from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} is not read: {error}; {AGAIN}") from None
    except (KeyError, ValueError, TypeError, IndexError, EOFError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); copy it again") from error


def state_dict(held: Any, path: Path) -> dict[str, np.ndarray]:
    """The arrays of a training checkpoint: its average where there is one.

    Raises:
      CheckpointError: there are no arrays where they should be.
    """
    for keys in (("ema", "module"), ("model",), ("state_dict",), ()):
        found = held
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        if isinstance(found, Mapping):
            arrays = {str(k): v for k, v in found.items() if isinstance(v, np.ndarray)}
            if arrays:
                return arrays
    raise CheckpointError(f"{path} holds no arrays under ema.module, model or by name; {AGAIN}")


class _Reader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, folder: str, inert: Collection[str]):
        self.inert = inert
        super().__init__(io.BytesIO(archive.read(f"{folder}data.pkl")))
        self.archive, self.folder = archive, folder
        if f"{folder}byteorder" in archive.namelist():
            order = archive.read(f"{folder}byteorder")
            if order != b"little":
                raise pickle.UnpicklingError("its bytes are in big-endian order")

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
            ("torch", "Size"): tuple,
        }
        if (module, name) in allowed:
            return allowed[module, name]
        if module == "builtins" and name in _TYPES:
            return _TYPES[name]
        if module == "torch" and name in _STORAGES:
            return _Storage(_STORAGES[name])
        if module.partition(".")[0] in self.inert:
            return Inert
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which may run anything")

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, storage, key, _, count = pid
        if kind != "storage" or not isinstance(storage, _Storage) or "/" in str(key):
            raise pickle.UnpicklingError("it refers to something that is no storage")
        data = self.archive.read(f"{self.folder}data/{key}")
        values = np.frombuffer(data, storage.dtype)
        if len(values) != count:
            raise ValueError(f"storage {key} has {len(values)} numbers instead of {count}")
        return values


def _tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *rest: Any) -> np.ndarray:
    """An array of a part of a storage, copied."""
    del rest
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    if offset < 0 or min((*stride, 0)) < 0 or min((*size, 0)) < 0 or len(size) != len(stride):
        raise ValueError("a tensor of negative size")
    if 0 in size:
        return np.zeros(size, storage.dtype)
    if last >= len(storage):
        raise ValueError("a tensor that lies outside of its storage")
    bytes_ = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, bytes_).copy()


def _parameter(data: np.ndarray, *rest: Any) -> np.ndarray:
    del rest
    return data
