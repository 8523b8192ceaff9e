"""A traced function (jaxpr) as an ONNX graph.

Each primitive of jax has a function in `REGISTRY` that appends the nodes with the same meaning.
Functions that are called are written out in place. What depends on no input is computed at once,
unless it would only become larger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from rtdetr.graphs.to_onnx import arithmetic, indexing, products, shapes
from rtdetr.graphs.to_onnx.builder import (
    IR_VERSION,
    OPSET,
    Builder,
    Name,
    Value,
    dtype_of,
    element_type,
    shape_of,
    unknown,
)

REGISTRY: Mapping[str, Callable[..., Any]] = {
    **arithmetic.REGISTRY,
    **shapes.REGISTRY,
    **products.REGISTRY,
    **indexing.REGISTRY,
}
# Where the function is that a calling primitive calls.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}
LARGEST_GROWN = 4096  # numbers of an array that is written out although it repeats a smaller one


def convert(
    function: Callable[..., Sequence[jax.Array]],
    arguments: Sequence[jax.ShapeDtypeStruct],
    inputs: Sequence[str],
    outputs: Sequence[str],
    metadata: Mapping[str, str] | None = None,
) -> Any:
    """The function as an `onnx.ModelProto`, checked, for arguments of exactly these shapes.

    Args:
      inputs, outputs: names of the arguments and of the results.
      metadata: what the model says of itself.

    Raises:
      ConfigError: the function has a primitive, or a form of one, that is not known here.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    builder = Builder()
    results = _walk(builder, closed, [Name(name) for name in inputs])
    # A result that is an input, or known, needs a node to carry its name.
    for value, name in zip(results, outputs):
        builder.rename(value, name)
    return _model(builder, closed.jaxpr, inputs, outputs, metadata or {})


def _model(
    builder: Builder,
    jaxpr: Jaxpr,
    inputs: Sequence[str],
    outputs: Sequence[str],
    metadata: Mapping[str, str],
) -> Any:
    from onnx import checker, helper

    def described(variables: Sequence[Any], names: Sequence[str]) -> list[Any]:
        return [
            helper.make_tensor_value_info(name, element_type(dtype_of(v)), shape_of(v))
            for v, name in zip(variables, names)
        ]

    graph = helper.make_graph(
        builder.nodes,
        "detector",
        described(jaxpr.invars, inputs),
        described(jaxpr.outvars, outputs),
        builder.initializers,
    )
    model = helper.make_model(
        graph,
        producer_name="podvision",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(model, dict(metadata))
    checker.check_model(model, full_check=True)
    return model


def _walk(builder: Builder, closed: ClosedJaxpr, arguments: Sequence[Value]) -> list[Value]:
    """Appends the nodes of a function; returns its results."""
    jaxpr = closed.jaxpr
    values: dict[Any, Value] = dict(zip(jaxpr.invars, arguments))
    values |= {v: np.asarray(const) for v, const in zip(jaxpr.constvars, closed.consts)}

    def read(variable: Any) -> Value:
        if isinstance(variable, Literal):  # a number of Python has no type of its own
            return np.asarray(variable.val, dtype_of(variable))
        return values[variable]

    for equation in jaxpr.eqns:
        results = _equation(builder, equation, [read(v) for v in equation.invars])
        values |= dict(zip(equation.outvars, results))
    return [read(v) for v in jaxpr.outvars]


def _equation(builder: Builder, equation: Any, inputs: list[Value]) -> list[Value]:
    primitive, params = equation.primitive, equation.params
    if primitive.name in CALLS:
        called = params[CALLS[primitive.name]]
        called = called if isinstance(called, ClosedJaxpr) else ClosedJaxpr(called, ())
        return _walk(builder, called, inputs)
    if all(isinstance(value, np.ndarray) for value in inputs) and not _grows(equation):
        results = primitive.bind(*inputs, **params)
        results = results if primitive.multiple_results else [results]
        return [np.asarray(result) for result in results]
    if primitive.name not in REGISTRY:
        raise unknown(f"the primitive {primitive.name}")
    results = REGISTRY[primitive.name](builder, equation, *inputs)
    return results if primitive.multiple_results else [results]


def _grows(equation: Any) -> bool:
    """Whether the result repeats a much smaller array."""
    if equation.primitive.name != "broadcast_in_dim":
        return False
    size = np.prod(shape_of(equation.outvars[0]))
    return bool(size > max(LARGEST_GROWN, np.prod(shape_of(equation.invars[0]))))
