"""Primitives that work number by number, and reductions over axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rtdetr.graphs.to_onnx.builder import Builder, Value, dtype_of, integers, unknown


def simple(operator: str) -> Callable[..., Any]:
    """A primitive that one operator means."""
    return lambda builder, equation, *inputs: builder.add(operator, *inputs)


def same(builder: Builder, equation: Any, x: Value) -> Value:
    return x


def cast(builder: Builder, equation: Any, x: Value) -> Value:
    wanted = dtype_of(equation.outvars[0])
    return x if dtype_of(equation.invars[0]) == wanted else builder.cast(x, wanted)


def rsqrt(builder: Builder, equation: Any, x: Value) -> Value:
    return builder.add("Reciprocal", builder.add("Sqrt", x))


def square(builder: Builder, equation: Any, x: Value) -> Value:
    return builder.add("Mul", x, x)


def integer_power(builder: Builder, equation: Any, x: Value) -> Value:
    return builder.add("Pow", x, np.array(equation.params["y"], dtype_of(equation.invars[0])))


def erfc(builder: Builder, equation: Any, x: Value) -> Value:
    one = np.array(1, dtype_of(equation.invars[0]))
    return builder.add("Sub", one, builder.add("Erf", x))


def remainder(builder: Builder, equation: Any, x: Value, y: Value) -> Value:
    return builder.add("Mod", x, y, fmod=1)  # with the sign of x, as in C


def not_equal(builder: Builder, equation: Any, x: Value, y: Value) -> Value:
    return builder.add("Not", builder.add("Equal", x, y))


def of_booleans(operator: str) -> Callable[..., Any]:
    """A logical operator; on whole numbers jax means their bits, which are not known here."""

    def logical(builder: Builder, equation: Any, *inputs: Value) -> Value:
        if dtype_of(equation.invars[0]) != np.bool_:
            raise unknown(f"the primitive {equation.primitive.name} on bits of whole numbers")
        return builder.add(operator, *inputs)

    return logical


def select(builder: Builder, equation: Any, which: Value, *cases: Value) -> Value:
    """The first case where `which` is false, the second where it is true."""
    if len(cases) != 2 or dtype_of(equation.invars[0]) != np.bool_:
        raise unknown("select_n of more than two cases")
    return builder.add("Where", which, cases[1], cases[0])


def clamp(builder: Builder, equation: Any, least: Value, x: Value, most: Value) -> Value:
    return builder.add("Min", builder.add("Max", x, least), most)


def total(builder: Builder, equation: Any, x: Value) -> Value:
    return builder.add("ReduceSum", x, integers(equation.params["axes"]), keepdims=0)


def extreme(operator: str) -> Callable[..., Any]:
    """The largest or smallest number over axes."""
    return lambda builder, equation, x: builder.add(
        operator, x, axes=list(equation.params["axes"]), keepdims=0
    )


def maximum_of_windows(builder: Builder, equation: Any, x: Value) -> Value:
    """Max pooling over the two middle axes of four."""
    params = equation.params
    window, padding = params["window_dimensions"], params["padding"]
    plain = all(set(params[name]) == {1} for name in ("base_dilation", "window_dilation"))
    outer = [(window[axis], tuple(padding[axis])) for axis in (0, 3)] if len(window) == 4 else []
    if not plain or outer != [(1, (0, 0))] * 2:
        raise unknown(f"reduce_window_max with the window {window}")
    pooled = builder.add(
        "MaxPool",
        builder.transpose(x, (0, 3, 1, 2)),
        kernel_shape=list(window[1:3]),
        strides=list(params["window_strides"][1:3]),
        pads=[padding[1][0], padding[2][0], padding[1][1], padding[2][1]],
    )
    return builder.transpose(pooled, (0, 2, 3, 1))


OPERATORS = {
    "add": "Add",
    "add_any": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "max": "Max",
    "min": "Min",
    "neg": "Neg",
    "abs": "Abs",
    "sign": "Sign",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "sin": "Sin",
    "cos": "Cos",
    "tanh": "Tanh",
    "erf": "Erf",
    "floor": "Floor",
    "ceil": "Ceil",
    "logistic": "Sigmoid",
    "pow": "Pow",
    "eq": "Equal",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
}
REGISTRY = {name: simple(operator) for name, operator in OPERATORS.items()} | {
    "convert_element_type": cast,
    "copy": same,
    "stop_gradient": same,
    "rsqrt": rsqrt,
    "square": square,
    "integer_pow": integer_power,
    "erfc": erfc,
    "rem": remainder,
    "ne": not_equal,
    "and": of_booleans("And"),
    "or": of_booleans("Or"),
    "xor": of_booleans("Xor"),
    "not": of_booleans("Not"),
    "select_n": select,
    "clamp": clamp,
    "reduce_sum": total,
    "reduce_max": extreme("ReduceMax"),
    "reduce_min": extreme("ReduceMin"),
    "reduce_window_max": maximum_of_windows,
}
