"""How far rounding alone moves a result: the measure of what two right answers may differ by.

A float32 computation gives the exact result of inputs that are off by some units in the last place
(backward error analysis, Higham 2002, chapter 1). So the result is computed again for inputs that
are moved by one unit, up or down at random: what it moves by holds both the condition of the
problem and the rounding inside of the computation, on this machine and for this compiler. The
largest of a few such moves bounds the error of one answer, and the sum of two that of two answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

DRAWS = 4


def rounding_bounds(function: Callable[[Any], Any], inputs: Any, answers: int = 1) -> Any:
    """Per output leaf, the largest difference that rounding explains.

    Args:
      function: of one tree of float32 arrays, compiled; its result is a tree of arrays.
      inputs: where it is looked at.
      answers: 1 against an exact reference, 2 between two float32 computations.
    """
    result = function(inputs)
    leaves, structure = jax.tree.flatten(inputs)
    moved = jax.tree.map(lambda leaf: np.zeros(()), result)
    for draw in range(DRAWS):
        keys = jax.random.split(jax.random.key(draw), len(leaves))
        other = function(structure.unflatten(_nudged(x, k) for x, k in zip(leaves, keys)))
        moved = jax.tree.map(np.maximum, moved, jax.tree.map(_largest_change, result, other))
    # A leaf that no nudge moves still has the rounding of its own last operation.
    own = jax.tree.map(lambda leaf: np.spacing(np.abs(np.asarray(leaf)).max()), result)
    return jax.tree.map(lambda m, o: answers * max(m, o), moved, own)


def _largest_change(a: jax.Array, b: jax.Array) -> np.ndarray:
    return np.abs(np.asarray(a) - np.asarray(b)).max()


def _nudged(leaf: jax.Array, key: jax.Array) -> jax.Array:
    up = jax.random.bernoulli(key, 0.5, leaf.shape)
    return jnp.nextafter(leaf, jnp.where(up, jnp.inf, -jnp.inf).astype(leaf.dtype))
