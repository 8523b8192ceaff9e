"""Proof before the first update: what the predictions and the targets depend on.

Self-supervised training has no label to fail on, so that each of these faults trains on with a
falling loss: hidden tokens that the encoder sees, a predictor that does not see its volume,
examples that mix, targets of the online encoder or of one that stands still, targets that are not
normalized. Each is a question about cause and effect, and is answered by an experiment: change one
input of the very functions that the loss uses, and look at what changes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jepa3d.inputs import Inputs, model_inputs
from jepa3d.model.jepa import Prediction
from training.loss import Batch, Context
from training.verdict import Verdict

if TYPE_CHECKING:
    from jepa3d.task import JepaTask
    from training.state import TrainState

NAME = "token-dependence"
# Root mean square change of predictions over their root mean square. Nothing that cannot be seen
# may change more than rounding does; what is seen changes far more.
UNSEEN, SEEN = 1e-3, 1e-6
# Mean and standard deviation of a normalized target: LayerNorm's epsilon of 1e-5 and rounding.
NORMALIZED = 0.02


def verdict(task: JepaTask, state: TrainState, batch: Batch) -> Verdict:
    """Whether hidden, visible and averaged inputs have the effects that they must have."""
    problem = _problem(_effects(task, state, batch))
    sentence = (
        "a prediction changes with the visible tokens of its own volume and with nothing hidden; "
        "targets are normalized and follow the averaged encoder"
    )
    return Verdict(NAME, not problem, problem or sentence)


def _problem(effects: dict[str, float]) -> str:
    if effects["hidden"] > UNSEEN:
        return (
            "predictions change with the pixels of the tokens that they should guess: the hidden "
            "tokens leak into the context; look at the masks and at what the encoder is given"
        )
    if effects["own"] < SEEN:
        return (
            "predictions do not change with the visible pixels of their own volume: the predictor "
            "is blind; look at what it is given of the context"
        )
    if effects["other"] > UNSEEN:
        return (
            "predictions change with the pixels of other volumes of the batch: the examples mix; "
            "look for a mean over the batch"
        )
    if effects["average"] == 0.0:
        return (
            "the loss does not change with the averaged encoder: the targets are those of the "
            "online encoder or of one that stands still"
        )
    if effects["target"] > NORMALIZED:
        return (
            f"the targets are off mean 0 and deviation 1 by up to {effects['target']:.2g} for an "
            "encoder of other scale: they are not normalized"
        )
    return ""


def _effects(task: JepaTask, state: TrainState, batch: Batch) -> dict[str, float]:
    """The effect of each change: size of the change of predictions, or of targets and loss."""
    compiled = _programs(task)
    params, average, model = state.params, state.ema, task.config.model
    seen, masks = compiled.inputs(batch)
    before = compiled.predicted(params, average, seen, masks)
    effects = {"hidden": [], "own": [], "other": []}
    for number, (context_ids, target_ids) in enumerate(masks):
        value = before.sets[number].prediction_BxTxD

        def change(ids: jax.Array, only_first: bool, number=number, value=value) -> jax.Array:
            other = compiled.changed(seen, ids, only_first)
            after = compiled.predicted(params, average, other, masks)
            return after.sets[number].prediction_BxTxD - value

        effects["hidden"].append(_relative(value, change(target_ids, False)))
        difference = change(context_ids, True)
        effects["own"].append(_relative(value[:1], difference[:1]))
        if len(value) > 1:
            effects["other"].append(_relative(value[1:], difference[1:]))
    # The worst set of each: a blind set is the one with the least effect of its own context.
    worst = {name: max(values, default=0.0) for name, values in effects.items()}
    worst["own"] = min(effects["own"])
    # An encoder of other scale, which its last norm passes on.
    other_average = jax.tree.map(lambda leaf: 1.5 * leaf, average)
    target = compiled.predicted(params, other_average, seen, masks).target_BxNxD
    levels = target.reshape(*target.shape[:-1], model.levels, -1)
    off = jnp.maximum(jnp.abs(levels.mean(axis=-1)), jnp.abs(jnp.std(levels, axis=-1) - 1.0))
    worst["target"] = float(off.max())
    losses = [compiled.loss(params, ema, batch) for ema in (average, other_average)]
    worst["average"] = abs(float(losses[1] - losses[0]))
    return worst


class _Programs(NamedTuple):
    """Compiled functions; each is compiled once and called several times."""

    inputs: Callable[..., Any]
    predicted: Callable[..., Prediction]
    changed: Callable[..., Inputs]
    loss: Callable[..., jax.Array]


@lru_cache(maxsize=2)
def _programs(task: JepaTask) -> _Programs:
    model = task.config.model

    def inputs(batch: Batch) -> tuple[Inputs, list[tuple[jax.Array, jax.Array]]]:
        seen = model_inputs(batch, None, task.config)
        keys = jax.random.split(jax.random.key(3), len(batch["volume"]))
        return seen, task.draw_masks(keys, seen)

    def changed(seen: Inputs, ids_BxT: jax.Array, only_first: bool) -> Inputs:
        """Other pixels in the tokens, of the first volume or of all."""
        rows = jnp.arange(len(ids_BxT))[:, None]
        chosen = jnp.zeros(seen.covered_BxN.shape, bool).at[rows, ids_BxT].set(True)
        chosen = (chosen & (rows == 0) if only_first else chosen).reshape(-1, *model.grid)
        for axis, size in enumerate(model.patch):
            chosen = jnp.repeat(chosen, size, axis=axis + 1)
        noise = jax.random.normal(jax.random.key(7), seen.volumes.shape)
        return seen._replace(volumes=seen.volumes + noise * chosen[..., None])

    def loss(params: Any, average: Any, batch: Batch) -> jax.Array:
        key = jax.random.key(11)
        context = Context(average, None, jnp.int32(0), key)
        return task.loss(params, context, batch, key).terms["prediction"].sum

    return _Programs(
        jax.jit(inputs),
        jax.jit(task.predicted),
        jax.jit(changed, static_argnums=2),
        jax.jit(loss),
    )


def _relative(value: jax.Array, difference: jax.Array) -> float:
    """Root mean square of a change over that of the value."""
    power = jnp.maximum(jnp.mean(value**2), jnp.finfo(jnp.float32).tiny)
    return float(jnp.sqrt(jnp.mean(difference**2) / power))
