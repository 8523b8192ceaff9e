"""One call of the step is `updates` optimizer updates: state in, state and metrics out.

An update: gradients of the whole loss over `accumulation` micro-batches (a scan), fp32 norm
measured before clipping, global-norm clip, Adam, EMA, and one tree-wide `where` that leaves the
state bit-identical when the update is suppressed (non-finite, or a reason that the task gives).

Each loss term is a sum and a weight. With accumulation the weights of the whole batch are taken
first (a pass of which the compiler keeps only what the weights depend on), so that a term is the
same quotient of totals for any number of micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from training.errors import ConfigError
from training.optimizer import Optimizer, clip_scale, global_norm, group_norms
from training.schedules import Schedule
from training.state import TrainState
from training.task import Batch, Context, LossOutput, LossTerm, Task, Total

PyTree = Any
Metrics = dict[str, jax.Array]


@dataclass(frozen=True)
class StepSettings:
    """What the step needs besides task and optimizer."""

    accumulation: int = 1
    clip_norm: float | None = None
    ema_decay: Schedule | None = None


def coefficient(term: LossTerm, applied: jax.Array) -> jax.Array:
    """The factor of a term at an update: its coefficient inside its window, else zero."""
    value = term.coefficient(applied) if callable(term.coefficient) else term.coefficient
    value = jnp.asarray(value, jnp.float32)
    if term.window is None:
        return value
    start, stop = term.window
    return jnp.where((applied >= start) & (applied < stop), value, 0.0)


def _split(batch: Batch, parts: int) -> Batch:
    """`[B, ...]` to `[parts, B / parts, ...]` by strides, so that no row leaves its device."""

    def split(x: jax.Array) -> jax.Array:
        x = jnp.swapaxes(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 0, 1)
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty or not {"data", "fsdp"} <= set(mesh.axis_names):
            return x
        return jax.lax.with_sharding_constraint(x, PartitionSpec(None, ("data", "fsdp")))

    return jax.tree.map(split, batch)


def _check_terms(task: Task, output: LossOutput) -> None:
    declared, given = set(task.loss_terms), set(output.terms)
    if declared != given:
        raise ConfigError(
            f"the loss returned the terms {sorted(given)} but {sorted(declared)} are declared"
        )


def _objective(
    task: Task,
    coefficients: dict[str, jax.Array],
    params: PyTree,
    context: Context,
    batch: Batch,
    key: jax.Array,
    weights: dict[str, jax.Array] | None,
) -> tuple[jax.Array, LossOutput]:
    """Weighted loss of one micro-batch; `weights` are those of the whole batch, or None."""
    output = task.loss(params, context, batch, key)
    _check_terms(task, output)
    if weights is None:
        weights = {name: jax.lax.stop_gradient(t.weight) for name, t in output.terms.items()}
    value = jnp.zeros((), jnp.float32)
    for name, total in output.terms.items():
        value += coefficients[name] * Total(total.sum, weights[name]).mean()
    return value, output


def _add_totals(a: dict[str, Total], b: dict[str, Total]) -> dict[str, Total]:
    return jax.tree.map(jnp.add, a, b)


@dataclass(frozen=True)
class _Gradients:
    """Gradients and outputs of one whole batch."""

    gradients: PyTree
    probes: PyTree
    terms: dict[str, Total]
    metrics: dict[str, Total]
    suppress: dict[str, jax.Array]
    model_state: PyTree
    update_rows: PyTree


def _micro_gradients(task, coefficients, params, context, batch, key, weights) -> _Gradients:
    probes = task.probes(batch)

    def objective(params, probes):
        return _objective(
            task, coefficients, params, replace(context, probes=probes), batch, key, weights
        )

    (gradients, probe_gradients), output = jax.grad(objective, argnums=(0, 1), has_aux=True)(
        params, probes
    )
    model_state = output.model_state
    if probes is not None:
        model_state = task.absorb(model_state, probe_gradients)
    return _Gradients(
        jax.tree.map(lambda g: g.astype(jnp.float32), gradients),
        probe_gradients,
        output.terms,
        output.metrics,
        output.suppress,
        jax.lax.stop_gradient(model_state),
        output.update_rows,
    )


def _batch_gradients(task, settings, coefficients, state, batch, resident) -> _Gradients:
    update_key = jax.random.fold_in(state.key, state.step)
    context = Context(state.ema, state.model_state, state.applied, update_key, resident)
    parts = settings.accumulation
    if parts == 1:
        key = jax.random.fold_in(update_key, 0)
        return _micro_gradients(task, coefficients, state.params, context, batch, key, None)

    micro = _split(batch, parts)
    numbers = jnp.arange(parts)
    keys = jax.vmap(lambda i: jax.random.fold_in(update_key, i))(numbers)

    def weigh(_, inputs):
        part, key = inputs
        probes = task.probes(part)
        output = task.loss(state.params, replace(context, probes=probes), part, key)
        _check_terms(task, output)
        return None, {name: total.weight for name, total in output.terms.items()}

    weights = jax.lax.stop_gradient(jax.lax.scan(weigh, None, (micro, keys))[1])
    weights = jax.tree.map(jnp.sum, weights)

    def accumulate(carry: tuple, inputs: tuple) -> tuple:
        part, key, number = inputs
        here = replace(context, model_state=carry[1], part=number)
        g = _micro_gradients(task, coefficients, state.params, here, part, key, weights)
        merged = (
            jax.tree.map(jnp.add, carry[0], g.gradients),
            g.model_state,
            _add_totals(carry[2], g.terms),
            _add_totals(carry[3], g.metrics),
            jax.tree.map(jnp.logical_or, carry[4], g.suppress),
            jax.tree.map(jnp.logical_or, carry[5], g.update_rows),
            jax.tree.map(jnp.add, carry[6], g.probes),
        )
        return merged, None

    first, rest = jax.tree.map(lambda x: x[0], micro), jax.tree.map(lambda x: x[1:], micro)
    g = _micro_gradients(task, coefficients, state.params, context, first, keys[0], weights)
    carry = (g.gradients, g.model_state, g.terms, g.metrics, g.suppress, g.update_rows, g.probes)
    carry, _ = jax.lax.scan(accumulate, carry, (rest, keys[1:], numbers[1:]))
    gradients, model_state, terms, metrics, suppress, rows, probes = carry
    return _Gradients(gradients, probes, terms, metrics, suppress, model_state, rows)


def _keep_rows(rows: PyTree, new: PyTree, old: PyTree) -> PyTree:
    """`new` where the row is True, else `old`; `rows` is a pytree prefix of the arrays."""

    def select(mask, new_subtree, old_subtree):
        def keep(n, o):
            return jnp.where(mask.reshape(mask.shape + (1,) * (n.ndim - mask.ndim)), n, o)

        return jax.tree.map(keep, new_subtree, old_subtree)

    return jax.tree.map(select, rows, new, old)


def _apply(task, optimizer, settings, state, g: _Gradients) -> tuple[TrainState, Metrics]:
    """The state after an update that is not suppressed, and what to log of it."""
    norm = global_norm(g.gradients)
    scale = clip_scale(norm, settings.clip_norm)
    gradients = jax.tree.map(lambda x: x * scale, g.gradients)
    updates, opt_state, rates = optimizer.update(
        gradients, state.opt_state, state.params, state.applied
    )
    params = jax.tree.map(jnp.add, state.params, updates)
    if g.update_rows is not None:
        params = _keep_rows(g.update_rows, params, state.params)
        opt_state = opt_state._replace(
            mu=_keep_rows(g.update_rows, opt_state.mu, state.opt_state.mu),
            nu=_keep_rows(g.update_rows, opt_state.nu, state.opt_state.nu),
        )
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 0x7FFFFFFF)
    params, model_state = task.after_update(params, g.model_state, state.applied, rates, key)
    ema, metrics = state.ema, {}
    if settings.ema_decay is not None:
        decay = settings.ema_decay(state.applied)
        ema = jax.tree.map(
            lambda e, p: decay * e + (1 - decay) * p, state.ema, task.ema_select(params)
        )
        metrics["ema_decay"] = decay
        metrics["ema_update_norm"] = global_norm(jax.tree.map(jnp.subtract, ema, state.ema))
    metrics |= {"grad_norm": norm, "clip_scale": scale, "update_norm": global_norm(updates)}
    metrics |= {f"grad_norm/{k}": v for k, v in group_norms(g.gradients, optimizer.labels).items()}
    metrics |= task.gradient_metrics(g.gradients, g.probes, g.model_state)
    metrics["learning_rate"] = jnp.max(jnp.stack(list(rates.values())))
    if len(rates) > 1:
        metrics |= {f"learning_rate/{name}": rate for name, rate in rates.items()}
    new = replace(state, params=params, opt_state=opt_state, ema=ema, model_state=model_state)
    return new, metrics


def _one_update(task, optimizer, settings, state, batch, resident, held):
    coefficients = {n: coefficient(t, state.applied) for n, t in task.loss_terms.items()}
    g = _batch_gradients(task, settings, coefficients, state, batch, resident)
    new, metrics = _apply(task, optimizer, settings, state, g)
    values = {name: coefficients[name] * total.mean() for name, total in g.terms.items()}
    loss = sum(values.values(), jnp.zeros((), jnp.float32))
    magnitude = sum((jnp.abs(v) for v in values.values()), jnp.zeros((), jnp.float32))

    finite = jnp.isfinite(loss) & jnp.isfinite(metrics["grad_norm"])
    replayed = jnp.asarray(held)
    for reason in task.replay_reasons:
        replayed |= g.suppress[reason]
    suppressed = ~finite | replayed
    for flag in g.suppress.values():
        suppressed |= flag
    kept = jax.tree.map(
        lambda n, o: jnp.where(suppressed, o, n),
        (new.params, new.opt_state, new.ema, new.model_state),
        (state.params, state.opt_state, state.ema, state.model_state),
    )
    state = TrainState(
        step=state.step + jnp.where(replayed, 0, 1),
        skipped=state.skipped + jnp.where(suppressed & ~replayed, 1, 0),
        params=kept[0],
        opt_state=kept[1],
        ema=kept[2],
        model_state=kept[3],
        key=state.key,
    )
    metrics |= {"loss": loss, "param_norm": global_norm(state.params)}
    metrics |= {f"loss/{name}": total.mean() for name, total in g.terms.items()}
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
    """The pure step: `(state, batches, resident) -> (state, metrics)`; jit it with `donate`.

    Leaves of `batches` are `[updates, batch, ...]`, metrics are fp32 `[updates]`. After an update
    that has to be replayed (`Task.replay_reasons`), that one and the rest of the call leave the
    state untouched, `step` included.
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


def make_term_gradients(
    task: Task, labels: PyTree
) -> Callable[[TrainState, Batch, PyTree], dict[str, dict[str, jax.Array]]]:
    """`(state, batch, resident) -> {term: {group: gradient norm}}` of the terms as weighted now."""

    def term_gradients(state: TrainState, batch: Batch, resident: PyTree):
        update_key = jax.random.fold_in(state.key, state.step)
        context = Context(state.ema, state.model_state, state.applied, update_key, resident)
        context = replace(context, probes=task.probes(batch))
        norms = {}
        for name, term in task.loss_terms.items():
            only = {n: jnp.zeros((), jnp.float32) for n in task.loss_terms}
            only[name] = coefficient(term, state.applied)

            def value(params, only=only):
                key = jax.random.fold_in(update_key, 0)
                return _objective(task, only, params, context, batch, key, None)[0]

            norms[name] = group_norms(jax.grad(value)(state.params), labels)
        return norms

    return term_gradients
