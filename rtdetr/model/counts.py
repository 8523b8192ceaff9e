"""Parameters and operations of a network, from its own graph: nothing is computed."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

from rtdetr.config import ModelConfig
from rtdetr.model.detector import detect, init


@functools.lru_cache(maxsize=16)
def shapes(config: ModelConfig, classes: int) -> tuple[Any, Any]:
    """Shapes of parameters and statistics."""
    return jax.eval_shape(lambda: init(jax.random.key(0), config, classes))


def parameter_counts(config: ModelConfig, classes: int) -> dict[str, int]:
    """Parameters of backbone, encoder and decoder; constants of frozen norms are none."""
    params, _ = shapes(config, classes)
    return {
        part: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
        for part, tree in params.items()
    }


@functools.lru_cache(maxsize=64)
def flops(config: ModelConfig, classes: int, size: tuple[int, int]) -> float:
    """Operations of one image forward: twice the products of convolutions and matrices.

    Args:
      size: (height, width) of the canvas in px.
    """
    params, statistics = shapes(config, classes)
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8)
    graph = jax.make_jaxpr(lambda p, s, x: detect(config, p, s, x, train=False)[0])(
        params, statistics, image
    )
    return 2.0 * _products(graph.jaxpr)


def _products(graph: Jaxpr) -> int:
    total = 0
    for equation in graph.eqns:
        if equation.primitive.name == "dot_general":
            total += _of_matrices(equation)
        elif equation.primitive.name == "conv_general_dilated":
            total += _of_convolution(equation)
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
                if isinstance(inner, Jaxpr):
                    total += _products(inner)
    return total


def _of_matrices(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _of_convolution(equation: Any) -> int:
    kernel = equation.invars[1].aval.shape
    out_axis = equation.params["dimension_numbers"].rhs_spec[0]
    per_value = math.prod(kernel) // kernel[out_axis]
    return math.prod(equation.outvars[0].aval.shape) * per_value
