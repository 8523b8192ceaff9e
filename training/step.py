"""One call of the step is `updates` optimizer updates: state in, state and metrics out.

An update: gradients of the whole loss over `accumulation` micro-batches, fp32 norm measured before
clipping, global-norm clip, Adam, EMA, and one tree-wide `where` that leaves the state bit-identical
when the update is suppressed (non-finite, or a reason that the task gives).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from training.capabilities import Averaged, Probing, Projecting, Resizable
from training.gradients import BatchGradients, batch_gradients, coefficients_of, context_of
from training.loss import Batch
from training.optimizer import Optimizer, clip_scale, global_norm, group_norms
from training.schedules import Schedule
from training.state import TrainState
from training.task import Task

PyTree = Any
Metrics = dict[str, jax.Array]
# Folded into the key of an update for what comes after it; micro-batches have 0, 1, 2, ...
AFTER_UPDATE = 0x7FFFFFFF


@dataclass(frozen=True)
class StepSettings:
    """What the step needs besides task and optimizer.

    Attributes:
      total: updates of the whole run.
      accumulation: micro-batches of an update.
      clip_norm: largest global norm of a gradient; None does not clip.
      ema_decay: of applied updates; None keeps no average.
    """

    total: int
    accumulation: int = 1
    clip_norm: float | None = None
    ema_decay: Schedule | None = None


def averaged(task: Any, params: PyTree, model_state: PyTree) -> PyTree:
    """What the EMA follows: all parameters, or what the task says."""
    return task.averaged(params, model_state) if isinstance(task, Averaged) else params


def replay_reasons(task: Task) -> tuple[str, ...]:
    """Reasons of suppression after which the task grows and the batch is made again."""
    return task.replay_reasons if isinstance(task, Resizable) else ()


def _keep_rows(rows: PyTree, new: PyTree, old: PyTree) -> PyTree:
    """`new` where the row is True, else `old`; `rows` is a pytree prefix of the arrays."""

    def select(mask, new_subtree, old_subtree):
        def keep(n, o):
            return jnp.where(mask.reshape(mask.shape + (1,) * (n.ndim - mask.ndim)), n, o)

        return jax.tree.map(keep, new_subtree, old_subtree)

    return jax.tree.map(select, rows, new, old)


def _optimized(
    optimizer: Optimizer, state: TrainState, gradients: PyTree, rows: PyTree
) -> tuple[TrainState, Metrics, dict[str, jax.Array]]:
    """Parameters and moments after Adam, the norm of its step, and the learning rates."""
    trained = optimizer.trained(state.params)
    updates, opt_state, rates = optimizer.update(gradients, state.opt_state, trained, state.applied)
    params = optimizer.whole(jax.tree.map(jnp.add, trained, updates), state.params)
    if rows is not None:
        params = _keep_rows(rows, params, state.params)
        # `count` goes on: it is one for all rows, see `optimizer._adam`.
        opt_state = opt_state._replace(
            mu=_keep_rows(rows, opt_state.mu, state.opt_state.mu),
            nu=_keep_rows(rows, opt_state.nu, state.opt_state.nu),
        )
    metrics = {"update_norm": global_norm(updates)}
    # The largest stands for all; with several groups, each has its own curve besides.
    metrics["learning_rate"] = jnp.max(jnp.stack(list(rates.values())))
    if len(rates) > 1:
        metrics |= {f"learning_rate/{name}": rate for name, rate in rates.items()}
    return replace(state, params=params, opt_state=opt_state), metrics, rates


def _apply(
    task: Any, optimizer: Optimizer, settings: StepSettings, state: TrainState, g: BatchGradients
) -> tuple[TrainState, Metrics]:
    """The state after an update that is not suppressed, and what to log of it."""
    # Measured before the clip: afterwards an exploded gradient looks like any other.
    norm = global_norm(g.gradients)
    scale = clip_scale(norm, settings.clip_norm)
    clipped = jax.tree.map(lambda x: x * scale, g.gradients)
    new, metrics, rates = _optimized(optimizer, state, clipped, g.update_rows)
    params, model_state = new.params, g.model_state
    if isinstance(task, Projecting):
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), AFTER_UPDATE)
        params, model_state = task.after_update(params, model_state, state.applied, rates, key)
    ema = state.ema
    if settings.ema_decay is not None:
        decay = settings.ema_decay(state.applied)
        target = averaged(task, params, model_state)
        ema = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, state.ema, target)
        metrics["ema_decay"] = decay
        metrics["ema_update_norm"] = global_norm(jax.tree.map(jnp.subtract, ema, state.ema))
    # Of the gradients before the clip, as the total norm above.
    norms = group_norms(g.gradients, optimizer.trained_labels)
    metrics |= {"grad_norm": norm, "clip_scale": scale}
    metrics |= {f"grad_norm/{name}": value for name, value in norms.items()}
    if isinstance(task, Probing):
        metrics |= task.gradient_metrics(g.gradients, g.probes, g.model_state)
    return replace(new, params=params, ema=ema, model_state=model_state), metrics


def _one_update(task, optimizer, settings, state, batch, resident, held):
    """State, metrics and whether the update has to be replayed; nothing moves while `held`."""
    coefficients = coefficients_of(task, state)
    context = context_of(state, resident, settings.total)
    g = batch_gradients(task, optimizer, settings.accumulation, coefficients, state, context, batch)
    new, metrics = _apply(task, optimizer, settings, state, g)
    totals = {name: task.loss_terms[name].bounded(total) for name, total in g.terms.items()}
    values = {name: coefficients[name] * total.mean() for name, total in totals.items()}
    loss = sum(values.values(), jnp.zeros((), jnp.float32))
    magnitude = sum((jnp.abs(v) for v in values.values()), jnp.zeros((), jnp.float32))

    # One gradient that is not finite makes the norm so.
    finite = jnp.isfinite(loss) & jnp.isfinite(metrics["grad_norm"])
    replayed = jnp.asarray(held)
    for reason in replay_reasons(task):
        replayed |= g.suppress[reason]
    suppressed = ~finite | replayed
    for flag in g.suppress.values():
        suppressed |= flag
    # A selection and not a product with a mask: 0 * NaN is NaN.
    kept = jax.tree.map(
        lambda n, o: jnp.where(suppressed, o, n),
        (new.params, new.opt_state, new.ema, new.model_state),
        (state.params, state.opt_state, state.ema, state.model_state),
    )
    state = TrainState(
        step=state.step + jnp.where(replayed, 0, 1),  # a replayed batch is not consumed
        skipped=state.skipped + jnp.where(suppressed & ~replayed, 1, 0),
        params=kept[0],
        opt_state=kept[1],
        ema=kept[2],
        model_state=kept[3],
        key=state.key,
    )
    metrics |= {"loss": loss, "param_norm": global_norm(state.params)}
    # Without coefficients, so that a curve of a term does not show their schedule.
    metrics |= {f"loss/{name}": total.mean() for name, total in totals.items()}
    # 1e-30: every term may be zero.
    metrics |= {f"share/{n}": jnp.abs(v) / (magnitude + 1e-30) for n, v in values.items()}
    metrics |= {name: total.mean() for name, total in g.metrics.items()}
    metrics |= {f"suppressed/{r}": f.astype(jnp.float32) for r, f in g.suppress.items()}
    metrics["suppressed/nonfinite"] = (~finite & ~replayed).astype(jnp.float32)
    metrics["replay"] = replayed.astype(jnp.float32)
    metrics["skipped"] = state.skipped.astype(jnp.float32)
    return state, metrics, replayed


def make_step(
    task: Task, optimizer: Optimizer, settings: StepSettings, updates: int = 1
) -> Callable[[TrainState, Batch, PyTree], tuple[TrainState, Metrics]]:
    """The pure step `(state, batches, resident) -> (state, metrics)`, to be jitted.

    Leaves of `batches` are `[updates, batch, ...]`, metrics are fp32 `[updates]`. After an update
    that has to be replayed (`Resizable.replay_reasons`), that one and the rest of the call leave
    the state untouched, `step` included.
    """

    def step(state: TrainState, batches: Batch, resident: PyTree):
        def body(carry, batch):
            state, metrics, held = _one_update(
                task, optimizer, settings, carry[0], batch, resident, carry[1]
            )
            return (state, held), metrics

        start = (state, jnp.zeros((), bool))
        if updates == 1:
            (state, _), metrics = body(start, jax.tree.map(lambda x: x[0], batches))
            return state, jax.tree.map(lambda m: m[None], metrics)
        (state, _), metrics = jax.lax.scan(body, start, batches)
        return state, metrics

    return step
