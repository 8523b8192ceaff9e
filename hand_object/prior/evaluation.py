"""How well a prior guesses the noise in grasps that it has not seen.

The same steps and noise at every evaluation, in standardized values. Beside it the error of a guess
that knows nothing but the mean of training grasps (`of_mean`): a prior must be below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from hand_object.prior.config import Config
from hand_object.prior.diffusion import (
    as_noise,
    grids_of,
    guess,
    noisy_grids,
    signal_of,
    standardized,
)
from training.loss import Batch
from training.mesh import Layout
from training.over_batches import BatchResult, over_batches
from training.source import Source
from training.state import TrainState
from training.verdict import Evaluation

STEPS = (100, 300, 500, 700, 900)  # original ones
SEED = 11


@dataclass(frozen=True)
class NoiseErrors:
    """Square errors of the guessed noise, with the category told, by kind of channel and step."""

    config: Config

    def __call__(self, params: Any, statistics: Any, batch: Batch) -> BatchResult:
        config, weight = self.config, batch["weight"]
        grids = grids_of(batch["joints"], batch["distances"], config.grid)
        clean = standardized(grids, statistics)

        def at(step: jax.Array) -> dict[str, jax.Array]:
            steps = jnp.full(len(clean), step)
            key = jax.random.fold_in(jax.random.key(SEED), step)
            keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(batch["index"])
            noise = jax.vmap(lambda k: jax.random.normal(k, clean.shape[1:]))(keys)
            noisy = noisy_grids(clean, noise, steps)
            found = guess(params, config.unet, noisy, steps, batch["condition"])
            found = as_noise(found, noisy, steps, config.unet.guesses)
            constant = as_noise(jnp.zeros_like(clean), noisy, steps, "clean")
            values = {}
            for name, guessed in (("", found), ("_of_mean", constant)):
                square = jnp.square(guessed - noise)
                # The noise's error as one of the clean values.
                ratio = (1.0 - signal_of(steps)) / signal_of(steps)
                values[f"noise_error_object{name}"] = square[..., :1]
                values[f"noise_error_hand{name}"] = square[..., 1:]
                values[f"clean_error_object{name}"] = (square * ratio)[..., :1]
            return {n: weight @ jnp.mean(v, axis=(1, 2, 3, 4)) for n, v in values.items()}

        # One after the other, so that the network is compiled once.
        rows = jax.lax.map(at, jnp.array(STEPS))
        return BatchResult({"n": weight.sum(), "errors": rows})


def evaluate(config: Config, state: TrainState, source: Source, layout: Layout) -> Evaluation:
    """Means over grasps, by step and over all steps."""
    arguments = (state.params, state.model_state)
    size, workers = config.evaluation.batch_size, config.loader.workers
    sums = over_batches(NoiseErrors(config), arguments, source, size, layout, workers).sums
    metrics = {}
    for name, values in sums["errors"].items():
        means = values / sums["n"]
        metrics[name] = float(means.mean())
        metrics |= {f"{name}/{step}": float(mean) for step, mean in zip(STEPS, means)}
    return Evaluation(metrics)
