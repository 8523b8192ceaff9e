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
from training.task import Batch, Context, LossOutput, Verdict

if TYPE_CHECKING:
    from splats.task import SplatTask

DATA_TERMS = ("l1", "ssim")
MAX_RESIZES = 8  # 256 times the configured pair capacity


def run(
    task: SplatTask, state: TrainState, batch: Batch, resident: dict[str, jax.Array]
) -> list[Verdict]:
    """Pixel dependence, gradient health and finite differences of the whole loss."""
    output = jax.jit(partial(_output, task))(state, batch, resident)
    for _ in range(MAX_RESIZES):
        if not bool(output.suppress["overflow"]):
            break
        task, _ = task.resize(state, "overflow")
        output = jax.jit(partial(_output, task))(state, batch, resident)
    value = jax.jit(partial(_objective, task), static_argnums=0)
    gradient = jax.jit(jax.value_and_grad(partial(_objective, task), argnums=1), static_argnums=0)
    gaussians, images = state.params["gaussians"], resident["images"]
    everything = tuple(task.loss_terms)

    def of_images(changed: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        return gradient(DATA_TERMS, gaussians, state, batch, resident | {"images": changed})

    def of_gaussians(moved: dict[str, jax.Array]) -> jax.Array:
        return value(everything, moved, state, batch, resident)

    whole = gradient(everything, gaussians, state, batch, resident)[1]
    return [
        guards.pixel_dependence(of_images, images, batch["view"]),
        guards.gradient_health(of_images(images)[1], float(output.metrics["visible"].mean())),
        guards.finite_differences(of_gaussians, whole, gaussians),
    ]


def _objective(
    task: SplatTask,
    names: tuple[str, ...],
    gaussians: dict[str, jax.Array],
    state: TrainState,
    batch: Batch,
    resident: Any,
) -> jax.Array:
    """The named terms of the loss, weighted as they are now."""
    state = replace(state, params=state.params | {"gaussians": gaussians})
    terms = _output(task, state, batch, resident).terms
    values = [
        coefficient(task.loss_terms[name], state.applied) * terms[name].mean() for name in names
    ]
    return sum(values, jnp.zeros((), jnp.float32))


def _output(task: SplatTask, state: TrainState, batch: Batch, resident: Any) -> LossOutput:
    update_key = jax.random.fold_in(state.key, state.step)
    context = Context(
        state.ema, state.model_state, state.applied, update_key, resident, task.probes(batch)
    )
    return task.loss(state.params, context, batch, update_key)
