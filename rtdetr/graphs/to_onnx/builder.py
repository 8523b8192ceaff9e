"""The ONNX graph while it is made: nodes in order, and arrays that are known beforehand.

A *value* is what stands for an array of the traced function: its name in the graph, or the array
itself where it depends on no input.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from training.errors import ConfigError

OPSET = 17  # the operators of 2022, which every runtime in use has
IR_VERSION = 8  # of the file, as old as the operators


class Name(NamedTuple):
    """An array that is computed by the graph."""

    text: str


Value = Name | np.ndarray


@dataclass
class Builder:
    """Collects a graph; made once for each."""

    nodes: list[Any] = field(default_factory=list)
    initializers: list[Any] = field(default_factory=list)
    _made: int = 0
    _known: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)

    def name(self, value: Value) -> str:
        """The name of a value; a known array becomes an initializer, equal ones a single one."""
        if isinstance(value, Name):
            return value.text
        from onnx import numpy_helper

        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._known:
            self._known[key] = f"known_{len(self._known)}"
            self.initializers.append(numpy_helper.from_array(value, self._known[key]))
        return self._known[key]

    def add(self, operator: str, *inputs: Value, outputs: int = 1, **attributes: Any) -> Any:
        """Appends a node; returns the Name of its result, a list of them for several outputs."""
        from onnx import helper

        made = [f"{operator}_{self._made + i}" for i in range(outputs)]
        self._made += outputs
        names = [self.name(value) for value in inputs]
        self.nodes.append(helper.make_node(operator, names, made, name=made[0], **attributes))
        results = [Name(text) for text in made]
        return results[0] if outputs == 1 else results

    def rename(self, value: Value, name: str) -> None:
        """Makes the value a result of the graph."""
        from onnx import helper

        self.nodes.append(helper.make_node("Identity", [self.name(value)], [name], name=name))

    def cast(self, value: Value, dtype: Any) -> Value:
        """The value in another type of numbers."""
        if isinstance(value, np.ndarray):
            return value.astype(dtype)
        return self.add("Cast", value, to=element_type(dtype))

    def reshape(self, value: Value, old: tuple[int, ...], new: tuple[int, ...]) -> Value:
        """The value with the shape `new`; `old` is the one that it has."""
        if isinstance(value, np.ndarray):
            return value.reshape(new)
        return value if old == new else self.add("Reshape", value, integers(new))

    def transpose(self, value: Value, order: tuple[int, ...]) -> Value:
        """The value with its axes in another order."""
        if isinstance(value, np.ndarray):
            return np.ascontiguousarray(value.transpose(order))
        if order == tuple(range(len(order))):
            return value
        return self.add("Transpose", value, perm=list(order))


def integers(numbers: Any) -> np.ndarray:
    """int64, what ONNX wants for shapes, axes and places."""
    return np.asarray(list(numbers), np.int64)


def element_type(dtype: Any) -> int:
    """ONNX's number for a numpy type."""
    from onnx import helper

    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def shape_of(variable: Any) -> tuple[int, ...]:
    """Of a variable of a traced function."""
    return tuple(variable.aval.shape)


def dtype_of(variable: Any) -> np.dtype:
    """Of a variable of a traced function."""
    return np.dtype(variable.aval.dtype)


def unknown(what: str) -> ConfigError:
    """The error for a primitive, or a form of one, that is not known here."""
    return ConfigError(
        f"{what} has no ONNX form here; add one to a REGISTRY in rtdetr/graphs/to_onnx, or export "
        "with --format stablehlo"
    )
