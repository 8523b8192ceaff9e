"""Primitives that move numbers without changing them."""

from __future__ import annotations

from typing import Any

from rtdetr.graphs.to_onnx.builder import Builder, Value, integers, shape_of


def broadcast(builder: Builder, equation: Any, x: Value) -> Value:
    """Axes of length 1 are inserted, then repeated."""
    wanted = shape_of(equation.outvars[0])
    old, places = shape_of(equation.invars[0]), equation.params["broadcast_dimensions"]
    flat = [1] * len(wanted)
    for place, size in zip(places, old):
        flat[place] = size
    x = builder.reshape(x, old, tuple(flat))
    return x if tuple(flat) == wanted else builder.add("Expand", x, integers(wanted))


def reshape(builder: Builder, equation: Any, x: Value) -> Value:
    return builder.reshape(x, shape_of(equation.invars[0]), shape_of(equation.outvars[0]))


def transpose(builder: Builder, equation: Any, x: Value) -> Value:
    return builder.transpose(x, tuple(equation.params["permutation"]))


def cut(builder: Builder, equation: Any, x: Value) -> Value:
    params, axes = equation.params, range(len(shape_of(equation.invars[0])))
    steps = params["strides"] or [1 for _ in axes]
    starts, ends = params["start_indices"], params["limit_indices"]
    return builder.add("Slice", x, *(integers(part) for part in (starts, ends, axes, steps)))


def join(builder: Builder, equation: Any, *parts: Value) -> Value:
    return builder.add("Concat", *parts, axis=equation.params["dimension"])


def stack(builder: Builder, equation: Any, *parts: Value) -> Value:
    axis = equation.params["axis"]
    raised = [builder.add("Unsqueeze", part, integers([axis])) for part in parts]
    return builder.add("Concat", *raised, axis=axis)


def split(builder: Builder, equation: Any, x: Value) -> list[Value]:
    sizes, axis = equation.params["sizes"], equation.params["axis"]
    if len(sizes) == 1:
        return [x]
    return builder.add("Split", x, integers(sizes), outputs=len(sizes), axis=axis)


def reverse(builder: Builder, equation: Any, x: Value) -> Value:
    axes = list(equation.params["dimensions"])
    ends = [-size - 1 for size in (shape_of(equation.invars[0])[axis] for axis in axes)]
    down = [-1] * len(axes)
    return builder.add("Slice", x, integers(down), integers(ends), integers(axes), integers(down))


REGISTRY = {
    "broadcast_in_dim": broadcast,
    "reshape": reshape,
    "squeeze": reshape,
    "expand_dims": reshape,
    "transpose": transpose,
    "slice": cut,
    "concatenate": join,
    "stack": stack,
    "split": split,
    "rev": reverse,
}
