"""The proofs of `splats.guards`, run on the first batch of a task."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from splats import guards
from training.state import TrainState
from training.step import coefficient
from training.task import Batch, Context, Verdict

if TYPE_CHECKING:
    from splats.task import SplatTask

DATA_TERMS = ("l1", "ssim")
MAX_RESIZES = 8  # 256 times the configured pair capacity


def run(
    task: SplatTask, state: TrainState, batch: Batch, resident: dict[str, jax.Array]
) -> list[Verdict]:
    """Pixel dependence, gradient health and finite differences of the whole loss."""
    gaussians, images = state.params["gaussians"], resident["images"]
    whole = {n: coefficient(term, state.applied) for n, term in task.loss_terms.items()}
    data = {n: c if n in DATA_TERMS else jnp.zeros_like(c) for n, c in whole.items()}

    for _ in range(MAX_RESIZES):
        # Coefficients are inputs, so that one compilation serves all checks.
        objective = jax.jit(jax.value_and_grad(partial(_objective, task), has_aux=True))
        (_, (visible, flags)), gradients = objective(gaussians, whole, state, batch, resident)
        reasons = [reason for reason in task.replay_reasons if bool(flags[reason])]
        if not reasons:
            break
        task, _ = task.resize(state, ", ".join(reasons))

    def of_images(changed: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        (value, _), gradient = objective(
            gaussians, data, state, batch, resident | {"images": changed}
        )
        return value, gradient

    def of_gaussians(moved: dict[str, jax.Array]) -> jax.Array:
        return objective(moved, whole, state, batch, resident)[0][0]

    return [
        guards.pixel_dependence(of_images, images, batch["view"]),
        guards.gradient_health(of_images(images)[1], float(visible)),
        guards.finite_differences(of_gaussians, gradients, gaussians),
    ]


def _objective(
    task: SplatTask,
    gaussians: dict[str, jax.Array],
    coefficients: dict[str, jax.Array],
    state: TrainState,
    batch: Batch,
    resident: Any,
) -> tuple[jax.Array, tuple[jax.Array, dict[str, jax.Array]]]:
    """The weighted loss; besides it the mean number of visible Gaussians and the suppressions."""
    state = replace(state, params=state.params | {"gaussians": gaussians})
    update_key = jax.random.fold_in(state.key, state.step)
    context = Context(
        state.ema, state.model_state, state.applied, update_key, resident, task.probes(batch)
    )
    output = task.loss(state.params, context, batch, update_key)
    values = [coefficients[name] * total.mean() for name, total in output.terms.items()]
    loss = sum(values, jnp.zeros((), jnp.float32))
    return loss, (output.metrics["visible"].mean(), output.suppress)
