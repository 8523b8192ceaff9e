"""The proofs of `splats.guards`, run on the first batch of a task."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from splats import guards
from training.gradients import coefficients_of, context_of, objective
from training.loss import Batch
from training.state import TrainState
from training.verdict import Verdict

if TYPE_CHECKING:
    from splats.task import SplatTask

DATA_TERMS = ("l1", "ssim")
MAX_RESIZES = 8  # 256 times the configured pair capacity


def run(
    task: SplatTask, state: TrainState, batch: Batch, resident: dict[str, jax.Array]
) -> list[Verdict]:
    """Pixel dependence, gradient health and finite differences of the whole loss."""
    gaussians, images = state.params["gaussians"], resident["images"]
    whole = coefficients_of(task, state)
    data = {n: c if n in DATA_TERMS else jnp.zeros_like(c) for n, c in whole.items()}

    for _ in range(MAX_RESIZES):
        # Coefficients are inputs, so that one compilation serves all checks.
        whole_loss = jax.jit(jax.value_and_grad(partial(_objective, task), has_aux=True))
        (_, (visible, flags)), gradients = whole_loss(gaussians, whole, state, batch, resident)
        reasons = [reason for reason in task.replay_reasons if bool(flags[reason])]
        if not reasons:
            break
        task, _ = task.resize(state, ", ".join(reasons))

    def of_images(changed: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        (value, _), gradient = whole_loss(
            gaussians, data, state, batch, resident | {"images": changed}
        )
        return value, gradient

    def of_gaussians(moved: dict[str, jax.Array]) -> jax.Array:
        return whole_loss(moved, whole, state, batch, resident)[0][0]

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
    params = state.params | {"gaussians": gaussians}
    context = replace(context_of(state, resident, 0), probes=task.probes(batch))
    loss, output = objective(task, coefficients, params, context, batch, context.update_key)
    return loss, (output.metrics["visible"].mean(), output.suppress)
