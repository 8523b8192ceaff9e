"""Products of matrices and convolutions."""

from __future__ import annotations

from math import prod
from typing import Any

from rtdetr.graphs.to_onnx.builder import Builder, Value, dtype_of, shape_of, unknown


def dot_general(builder: Builder, equation: Any, x: Value, y: Value) -> Value:
    """Any product over shared axes, as MatMul of `[..., rows, inner]` and `[..., inner, columns]`.

    A kernel of two axes multiplies the last axis of `x` as it is, with no reshaping.
    """
    (inner, inner_y), (batch, batch_y) = equation.params["dimension_numbers"]
    shape, shape_y = shape_of(equation.invars[0]), shape_of(equation.invars[1])
    if not batch and len(shape_y) == 2 and tuple(inner) == (len(shape) - 1,):
        kernel = y if tuple(inner_y) == (0,) else builder.transpose(y, (1, 0))
        return _typed(builder, equation, builder.add("MatMul", x, kernel))
    free = [axis for axis in range(len(shape)) if axis not in (*inner, *batch)]
    free_y = [axis for axis in range(len(shape_y)) if axis not in (*inner_y, *batch_y)]
    shared = [shape[axis] for axis in batch]
    depth = prod(shape[axis] for axis in inner)
    rows, columns = [shape[axis] for axis in free], [shape_y[axis] for axis in free_y]
    left = _flat(builder, x, shape, (*batch, *free, *inner), (*shared, prod(rows), depth))
    right = _flat(
        builder, y, shape_y, (*batch_y, *inner_y, *free_y), (*shared, depth, prod(columns))
    )
    product = builder.add("MatMul", left, right)
    flat = (*shared, prod(rows), prod(columns))
    product = builder.reshape(product, flat, (*shared, *rows, *columns))
    return _typed(builder, equation, product)


def _flat(
    builder: Builder,
    x: Value,
    shape: tuple[int, ...],
    order: tuple[int, ...],
    wanted: tuple[int, ...],
) -> Value:
    """The axes in another order, then with another shape."""
    moved = tuple(shape[axis] for axis in order)
    return builder.reshape(builder.transpose(x, order), moved, wanted)


def _typed(builder: Builder, equation: Any, product: Value) -> Value:
    wanted = dtype_of(equation.outvars[0])
    return product if dtype_of(equation.invars[0]) == wanted else builder.cast(product, wanted)


def convolution(builder: Builder, equation: Any, x: Value, kernel: Value) -> Value:
    """With any order of axes; ONNX wants [batch, channel, ...] and [out, in, ...]."""
    params = equation.params
    numbers = params["dimension_numbers"]
    if set(params["lhs_dilation"]) != {1} or params["batch_group_count"] != 1:
        raise unknown("a transposed convolution")
    padding = params["padding"]
    result = builder.add(
        "Conv",
        builder.transpose(x, tuple(numbers.lhs_spec)),
        builder.transpose(kernel, tuple(numbers.rhs_spec)),
        strides=list(params["window_strides"]),
        pads=[before for before, _ in padding] + [after for _, after in padding],
        dilations=list(params["rhs_dilation"]),
        group=params["feature_group_count"],
    )
    back = [0] * len(numbers.out_spec)
    for place, axis in enumerate(numbers.out_spec):
        back[axis] = place
    return _typed(builder, equation, builder.transpose(result, tuple(back)))


REGISTRY = {"dot_general": dot_general, "conv_general_dilated": convolution}
