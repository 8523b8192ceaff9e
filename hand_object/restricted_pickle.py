"""Pickles of others, read without running anything that they ask for.

HOLD's `data.npy` and MANO's files are pickles, and a pickle may name any function of the machine.
Here it may name numpy arrays, plain containers and two kinds of records: matrices of scipy.sparse
and arrays of chumpy, both of which become a `Record` of what they hold. Everything else is refused.
"""

from __future__ import annotations

import collections
import io
import itertools
import pickle
from pathlib import Path

import numpy as np

from training.errors import InputError

# What numpy itself writes for arrays and for single numbers.
_MAKERS = {
    "_reconstruct": np.empty(0).__reduce__()[0],
    "scalar": np.float64(0).__reduce__()[0],
}
_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
_BUILTINS = {"dict": dict, "list": list, "tuple": tuple, "set": set, "slice": slice}
_BUILTINS |= {"int": int, "float": float, "complex": complex, "bool": bool, "str": str}
_BUILTINS |= {"object": object, "bytes": bytes, "bytearray": bytearray}
_RECORDS = ("chumpy", "scipy.sparse")  # packages whose objects become records


class Record:
    """An object of a package that is not installed, or not trusted: its state and nothing else."""

    arguments: tuple
    state: dict

    def __new__(cls, *arguments):
        # Pickles make most objects without `__init__`.
        self = super().__new__(cls)
        self.arguments, self.state = arguments, {}
        return self

    def __setstate__(self, state):
        if isinstance(state, dict):
            self.state.update(state)


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """Stands for `_codecs.encode`, by which protocol 2 writes bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"the text encoding {encoding} is not allowed")
    return text.encode("latin1")


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if module in _ARRAYS and name in _MAKERS:
            return _MAKERS[name]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if (module, name) == ("trimesh.caching", "TrackedArray"):
            return np.ndarray  # HOLD writes points of a trimesh mesh; an array that counts changes
        if module in ("builtins", "__builtin__") and name in _BUILTINS:
            return _BUILTINS[name]
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("_codecs", "encode"):
            return _encode_latin1
        if (module, name) in (("copy_reg", "_reconstructor"), ("copyreg", "_reconstructor")):
            return lambda kind, base, state: kind()
        if any(module == package or module.startswith(package + ".") for package in _RECORDS):
            return Record
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_pickle(path: Path):
    """What a pickle holds, in plain containers, numpy arrays and records.

    Raises:
      InputError: there is no such file, it is damaged, or it asks for something else.
    """
    return _load(path, _read(path))


def read_pickled_npy(path: Path):
    """The one object of an `.npy` file that was saved with `allow_pickle`, as HOLD saves it.

    Raises:
      InputError: as `read_pickle`, or it is no such file.
    """
    data = _read(path)
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        shape, _, dtype = read[version[0]](stream)
    except (ValueError, KeyError) as error:
        raise InputError(f"{path} is no .npy file ({error}); build the sequence again") from None
    if dtype != np.dtype(object) or shape != ():
        raise InputError(f"{path} holds an array {shape} of {dtype}, not HOLD's dictionary")
    held = _load(path, data[stream.tell() :])
    return held.item() if isinstance(held, np.ndarray) else held


def dense(value) -> np.ndarray:
    """A numpy array of an array, or of the record of a sparse matrix or of a chumpy array.

    Raises:
      InputError: it is none of these.
    """
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Record):
        state = value.state
        if "indptr" in state:
            return _dense_columns(state)
        for key in ("x", "a", "r"):
            if key in state:
                return _selected(dense(state[key]), state)
        for argument in value.arguments:
            if isinstance(argument, (np.ndarray, Record)):
                return dense(argument)
    raise InputError(f"an array was expected and a {type(value).__name__} was found in a pickle")


def _selected(array: np.ndarray, state: dict) -> np.ndarray:
    """Chumpy's `Select`: entries `idxs` of a flat array, in the shape `preferred_shape`."""
    if "idxs" not in state:
        return array
    shape = state.get("preferred_shape", (-1,))
    return array.ravel()[np.asarray(state["idxs"])].reshape(shape)


def _dense_columns(state: dict) -> np.ndarray:
    """A compressed matrix; by columns, as MANO's joint regressor, or by rows."""
    rows, columns = state["_shape"] if "_shape" in state else state["shape"]
    pointers, indices, values = state["indptr"], state["indices"], state["data"]
    by_columns = len(pointers) == columns + 1
    full = np.zeros((columns, rows) if by_columns else (rows, columns))
    for line, (first, last) in enumerate(itertools.pairwise(pointers)):
        full[line, indices[first:last]] = values[first:last]
    return full.T if by_columns else full


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"there is no file {path}; check the path")
    return path.read_bytes()


def _load(path: Path, data: bytes):
    try:
        return _Restricted(io.BytesIO(data), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is refused: {error}; only arrays and plain containers are read from a pickle"
        ) from None
    except (EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise InputError(f"{path} is a damaged pickle ({error}); copy it again") from None
