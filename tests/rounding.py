"""How far rounding alone moves a result: the measure of what two right answers may differ by.

A float32 computation gives the exact result of inputs that are off by some units in the last place
(backward error analysis, Higham 2002, chapter 1). So the result is computed again for inputs that
are moved by one unit, up or down at random: what it moves by holds both the condition of the
problem and the rounding inside of the computation, on this machine and for this compiler. Two
computations of the same function that differ by several times as much differ in more than rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

DRAWS = 4
# Largest of a few draws against a difference of two roundings whose errors add up: as far as a
# normal deviate of a thousand entries lies above the largest of four thousand, twice, is below 3.
FACTOR = 3.0


def rounding_bounds(function: Callable[[Any], Any], inputs: Any) -> Any:
    """Per output leaf, by how much at most two float32 computations of `function` may differ.

    Args:
      function: of one tree of float32 arrays, compiled; its result is a tree of arrays.
      inputs: where it is looked at.
    """
    result = function(inputs)
    leaves, structure = jax.tree.flatten(inputs)
    moved = jax.tree.map(lambda leaf: np.zeros(()), result)
    for draw in range(DRAWS):
        keys = jax.random.split(jax.random.key(draw), len(leaves))
        other = function(structure.unflatten(_nudged(x, k) for x, k in zip(leaves, keys)))
        change = jax.tree.map(
            lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).max(), result, other
        )
        moved = jax.tree.map(np.maximum, moved, change)
    # A leaf that no nudge moves still has the rounding of its own last operation.
    own = jax.tree.map(lambda leaf: np.spacing(np.abs(np.asarray(leaf)).max()), result)
    return jax.tree.map(lambda m, o: FACTOR * max(m, o), moved, own)


def _largest_change(a: jax.Array, b: jax.Array) -> np.ndarray:
    return np.abs(np.asarray(a) - np.asarray(b)).max()


def _nudged(leaf: jax.Array, key: jax.Array) -> jax.Array:
    up = jax.random.bernoulli(key, 0.5, leaf.shape)
    return jnp.nextafter(leaf, jnp.where(up, jnp.inf, -jnp.inf).astype(leaf.dtype))
