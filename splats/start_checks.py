"""The proofs of `splats.guards`, run on the first batch of a task."""

from __future__ import annotations

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
    for _ in range(MAX_RESIZES):
        output = jax.jit(lambda t=task: _output(t, state, batch, resident, state.params))()
        if not bool(output.suppress["overflow"]):
            break
        task, _ = task.resize(state, "overflow")
    everything = tuple(task.loss_terms)
    gaussians = state.params["gaussians"]

    def objective(gaussians: dict, images: jax.Array, names: tuple[str, ...]) -> jax.Array:
        params = state.params | {"gaussians": gaussians}
        output = _output(task, state, batch, resident | {"images": images}, params)
        coefficients = {n: coefficient(task.loss_terms[n], state.applied) for n in names}
        values = [coefficients[name] * output.terms[name].mean() for name in names]
        return sum(values, jnp.zeros((), jnp.float32))

    value_and_grad = jax.jit(jax.value_and_grad(objective), static_argnums=2)
    value = jax.jit(objective, static_argnums=2)
    images = resident["images"]
    data_gradients = value_and_grad(gaussians, images, DATA_TERMS)[1]
    gradients = value_and_grad(gaussians, images, everything)[1]
    return [
        guards.pixel_dependence(
            lambda changed: value_and_grad(gaussians, changed, DATA_TERMS), images, batch["view"]
        ),
        guards.gradient_health(data_gradients, float(output.metrics["visible"].mean())),
        guards.finite_differences(
            lambda moved: value(moved, images, everything), gradients, gaussians
        ),
    ]


def _output(task: SplatTask, state: TrainState, batch: Batch, resident: Any, params: Any):
    update_key = jax.random.fold_in(state.key, state.step)
    context = Context(
        state.ema, state.model_state, state.applied, update_key, resident, task.probes(batch)
    )
    return task.loss(params, context, batch, update_key)
