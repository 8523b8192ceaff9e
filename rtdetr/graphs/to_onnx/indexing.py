"""Primitives that choose: reads by index, the largest numbers, sorting."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.lax import GatherScatterMode

from rtdetr.graphs.to_onnx.builder import Builder, Value, dtype_of, integers, shape_of, unknown


def gather(builder: Builder, equation: Any, x: Value, index: Value) -> Value:
    """Reads of whole rows, as GatherND; a runtime refuses an index that is out of bounds.

    Axes of `x` come in three kinds: *chosen* by the columns of the index; *paired* with an axis of
    the index, row by row; and read whole, which need no index.
    """
    params = equation.params
    numbers, sizes, shape = params["dimension_numbers"], params["slice_sizes"], _shape(equation, 0)
    paired, chosen = numbers.operand_batching_dims, numbers.collapsed_slice_dims
    whole = [axis for axis in range(len(shape)) if axis not in (*paired, *chosen)]
    if any(sizes[axis] != shape[axis] for axis in whole):
        raise unknown(f"gather with slices {sizes} of {shape}")
    outer = _shape(equation, 1)[:-1]  # axes of the index, without its columns
    index = _bounded(builder, equation, builder.cast(index, np.int64))
    coordinates: list[Value] = [
        _counted(outer, axis) for axis in numbers.start_indices_batching_dims
    ]
    columns = numbers.start_index_map
    coordinates += [_column(builder, index, columns, axis, outer) for axis in chosen]
    full = _together(builder, coordinates, outer)
    rows = builder.transpose(x, (*paired, *chosen, *whole))
    found = builder.add("GatherND", rows, full)
    return builder.transpose(found, _final_order(numbers.offset_dims, len(outer) + len(whole)))


def _shape(equation: Any, place: int) -> tuple[int, ...]:
    return shape_of(equation.invars[place])


def _bounded(builder: Builder, equation: Any, index: Value) -> Value:
    """The index held inside of the array, where jax holds it there."""
    params = equation.params
    if params["mode"] != GatherScatterMode.CLIP:
        return index
    shape = _shape(equation, 0)
    axes = params["dimension_numbers"].start_index_map
    most = integers(shape[axis] - params["slice_sizes"][axis] for axis in axes)
    return builder.add("Min", builder.add("Max", index, np.array(0, np.int64)), most)


def _counted(outer: tuple[int, ...], axis: int) -> np.ndarray:
    """The place along an axis, int64 `[*outer, 1]`."""
    counted = np.arange(outer[axis]).reshape([-1 if i == axis else 1 for i in range(len(outer))])
    return np.ascontiguousarray(np.broadcast_to(counted, outer))[..., None]


def _column(
    builder: Builder, index: Value, columns: tuple[int, ...], axis: int, outer: tuple[int, ...]
) -> Value:
    """What the index says of an axis of the array; zeros where it says nothing."""
    if axis not in columns:
        return np.zeros((*outer, 1), np.int64)
    if len(columns) == 1:
        return index
    place, last = columns.index(axis), len(outer)
    bounds = (integers([place]), integers([place + 1]), integers([last]))
    return builder.add("Slice", index, *bounds)


def _together(builder: Builder, coordinates: list[Value], outer: tuple[int, ...]) -> Value:
    if len(coordinates) == 1:
        return coordinates[0]
    return builder.add("Concat", *coordinates, axis=len(outer))


def _final_order(offsets: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """GatherND leaves the axes of the index first; jax puts those of a row at `offsets`."""
    order, first, row = [], 0, rank - len(offsets)
    for axis in range(rank):
        if axis in offsets:
            order.append(row)
            row += 1
        else:
            order.append(first)
            first += 1
    return tuple(order)


def top_k(builder: Builder, equation: Any, x: Value) -> list[Value]:
    """The largest first; of equal ones the first, in jax and in onnxruntime alike."""
    axis = equation.params.get("axis", -1)
    count = integers([equation.params["k"]])
    values, places = builder.add("TopK", x, count, outputs=2, axis=axis, largest=1, sorted=1)
    return [values, builder.cast(places, dtype_of(equation.outvars[1]))]


def sort(builder: Builder, equation: Any, *inputs: Value) -> list[Value]:
    """Of one array, ascending: all of its numbers, the smallest first."""
    if len(inputs) != 1:
        raise unknown("sort of several arrays by one")
    axis = equation.params["dimension"]
    count = integers([_shape(equation, 0)[axis]])
    values, _ = builder.add("TopK", *inputs, count, outputs=2, axis=axis, largest=0, sorted=1)
    return [values]


REGISTRY = {"gather": gather, "top_k": top_k, "sort": sort}
