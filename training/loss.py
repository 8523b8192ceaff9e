"""What a loss is made of: named terms, each a sum and the weight that it is divided by.

The step divides by the weights of the whole batch, so that any split into micro-batches gives one
result. Vocabulary: *term* a named part of the loss; *applied* updates really made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any
Batch = dict[str, jax.Array]
# (applied updates int32, model state) -> factor, fp32
Coefficient = Callable[[jax.Array, PyTree], jax.Array]


class Total(NamedTuple):
    """A sum and the weight that it is divided by, both fp32 scalars."""

    sum: jax.Array
    weight: jax.Array

    def mean(self) -> jax.Array:
        """The quotient; zero where the weight is zero."""
        # A division by zero, though not selected below, would make the gradient NaN.
        safe = jnp.where(self.weight > 0, self.weight, 1.0)
        return jnp.where(self.weight > 0, self.sum / safe, 0.0)


@dataclass(frozen=True)
class LossTerm:
    """Declares one term of the loss. A term contributes `coefficient * sum / weight`.

    Attributes:
      coefficient: a number, or a pure function of the applied updates and the model state.
      required: the run is stopped when the term is exactly constant or zero for long.
      window: applied updates [start, stop) in which the term is active; None is always.
      share_cap: largest share of the total loss that the term may take while it is active.
      least_weight: what the term is divided by at least, where the whole batch weighs less.
    """

    coefficient: float | Coefficient = 1.0
    required: bool = True
    window: tuple[int, int] | None = None
    share_cap: float | None = None
    least_weight: float = 0.0

    def bounded(self, total: Total) -> Total:
        """The total of a whole batch, with at least `least_weight`."""
        if not self.least_weight:
            return total
        return Total(total.sum, jnp.maximum(total.weight, self.least_weight))

    def factor(self, applied: jax.Array, model_state: PyTree) -> jax.Array:
        """The coefficient at an update: zero outside the window, fp32."""
        value = self.coefficient
        value = value(applied, model_state) if callable(value) else value
        value = jnp.asarray(value, jnp.float32)
        if self.window is None:
            return value
        start, stop = self.window
        return jnp.where((applied >= start) & (applied < stop), value, 0.0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Context:
    """What a loss or a refresh may read besides parameters and batch.

    Attributes:
      ema: averaged parameters (see `capabilities.Averaged`), or None.
      model_state: non-differentiated state (statistics, masks, counters).
      applied: int32 scalar, updates made so far.
      update_key: PRNG key shared by all micro-batches of the update; fold in
        `batch["position"]` for randomness that belongs to an example.
      resident: device arrays from `Task.resident`, never donated.
      probes: zeros from `Probing.probes`; their gradients go to `Probing.absorb`.
      part: number of the micro-batch inside of its update.
      total: updates of the whole run, a Python number.
    """

    ema: PyTree
    model_state: PyTree
    applied: jax.Array
    update_key: jax.Array
    resident: PyTree = None
    probes: PyTree = None
    part: jax.Array | int = 0
    total: int = field(default=0, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossOutput:
    """Result of one loss evaluation on one micro-batch.

    Attributes:
      terms: one `Total` for each declared term, under the declared names.
      model_state: the new non-differentiated state.
      metrics: further totals to log, averaged over the update.
      suppress: reason -> bool scalar; True leaves the whole state bit-identical.
      update_rows: None, or a pytree prefix of `params` with bool arrays on the leading axis:
        rows that are False keep their parameter and optimizer moments.
    """

    terms: dict[str, Total]
    model_state: PyTree
    metrics: dict[str, Total] = field(default_factory=dict)
    suppress: dict[str, jax.Array] = field(default_factory=dict)
    update_rows: PyTree = None
