"""The train state: one frozen pytree with everything that a resumed run needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """State in, state out.

    Attributes:
      step: int32 scalar, global batches consumed; names checkpoints and drives data and RNG.
      skipped: int32 scalar, updates that were suppressed.
      params: fp32 pytree.
      opt_state: `optax.ScaleByAdamState`, the moments of what is trained.
      ema: fp32 pytree of averaged parameters, or None.
      model_state: pytree of what is not differentiated, or None.
      key: typed PRNG key of the run, never advanced.
    """

    step: jax.Array
    skipped: jax.Array
    params: Any
    opt_state: Any
    ema: Any
    model_state: Any
    key: jax.Array

    @property
    def applied(self) -> jax.Array:
        """Updates really made: drives the learning rate and the EMA decay."""
        return self.step - self.skipped


def new_state(
    params: Any, model_state: Any, opt_state: Any, ema: Any, key: jax.Array
) -> TrainState:
    """A state at step 0."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=opt_state,
        ema=ema,
        model_state=model_state,
        key=key,
    )
