"""The proofs of `splats.guards`, run on the first batch of a task."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from splats import guards
from training.capabilities import Resizable
from training.gradients import coefficients_of, context_of, objective, probes_of
from training.loss import Batch
from training.state import TrainState
from training.step import replay_reasons
from training.task import Task
from training.verdict import Verdict

DATA_TERMS = ("l1", "ssim")
MAX_RESIZES = 8  # 256 times the configured pair capacity


def run(
    task: Task, state: TrainState, batch: Batch, resident: dict[str, jax.Array]
) -> list[Verdict]:
    """Pixel dependence, gradient health and finite differences of the whole loss.

    The views are drawn with all the room that they need: an incomplete image proves nothing.
    """
    gaussians, images = state.params["gaussians"], resident["images"]
    whole = coefficients_of(task, state)
    data = {n: c if n in DATA_TERMS else jnp.zeros_like(c) for n, c in whole.items()}

    for _ in range(MAX_RESIZES):
        # Coefficients are inputs, so that one compilation serves all checks.
        whole_loss = jax.jit(jax.value_and_grad(partial(_objective, task), has_aux=True))
        (_, (visible, flags)), gradients = whole_loss(gaussians, whole, state, batch, resident)
        reasons = [reason for reason in replay_reasons(task) if bool(flags[reason])]
        if not reasons:
            break
        assert isinstance(task, Resizable)  # no other task has reasons
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
    task: Task,
    gaussians: dict[str, jax.Array],
    coefficients: dict[str, jax.Array],
    state: TrainState,
    batch: Batch,
    resident: Any,
) -> tuple[jax.Array, tuple[jax.Array, dict[str, jax.Array]]]:
    """The weighted loss; besides it the mean number of visible Gaussians and the suppressions."""
    params = state.params | {"gaussians": gaussians}
    context = replace(context_of(state, resident, 0), probes=probes_of(task, batch))
    loss, output = objective(task, coefficients, params, context, batch, context.update_key)
    return loss, (output.metrics["visible"].mean(), output.suppress)
