"""Gradients of the whole loss of a batch, over one or several micro-batches.

Each loss term is a sum and a weight. With accumulation a first pass takes the weights of the whole
batch, so that a term is the same quotient of totals for any number of micro-batches. That pass is
cheap: the compiler drops all that the weights do not depend on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from training.capabilities import Probing
from training.errors import ConfigError
from training.loss import Batch, Context, LossOutput, Total
from training.optimizer import Optimizer, group_norms
from training.state import TrainState
from training.task import Task

PyTree = Any
Coefficients = Mapping[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BatchGradients:
    """Gradients (of what is trained) and outputs of one whole batch."""

    gradients: PyTree
    probes: PyTree
    terms: dict[str, Total]
    metrics: dict[str, Total]
    suppress: dict[str, jax.Array]
    model_state: PyTree
    update_rows: PyTree


def coefficients_of(task: Task, state: TrainState) -> dict[str, jax.Array]:
    """The factor of each loss term at the coming update."""
    terms = task.loss_terms.items()
    return {name: term.factor(state.applied, state.model_state) for name, term in terms}


def context_of(
    state: TrainState, resident: PyTree, total: int, key: jax.Array | None = None
) -> Context:
    """What the loss may read at the coming update, or a refresh before it (with its own `key`)."""
    # By `step` and not by `applied`: the update after a suppressed one must draw anew.
    update_key = jax.random.fold_in(state.key, state.step) if key is None else key
    return Context(state.ema, state.model_state, state.applied, update_key, resident, total=total)


def probes_of(task: Task, batch: Batch) -> PyTree:
    """The further inputs of the loss whose gradients the task wants, or None."""
    return task.probes(batch) if isinstance(task, Probing) else None


def objective(
    task: Task,
    coefficients: Coefficients,
    params: PyTree,
    context: Context,
    batch: Batch,
    key: jax.Array,
    weights: Mapping[str, jax.Array] | None = None,
) -> tuple[jax.Array, LossOutput]:
    """The loss of one micro-batch, fp32, and its parts.

    Args:
      coefficients: factor of each term.
      weights: of the terms, those of the whole batch; None takes this micro-batch's own.

    Raises:
      ConfigError: the loss returned other terms than are declared.
    """
    output = task.loss(params, context, batch, key)
    declared, given = set(task.loss_terms), set(output.terms)
    if declared != given:
        raise ConfigError(
            f"the loss returned the terms {sorted(given)} but {sorted(declared)} are declared"
        )
    if weights is None:
        # A gradient through the weight would lower the loss by raising its divisor.
        weights = {name: jax.lax.stop_gradient(t.weight) for name, t in output.terms.items()}
    value = jnp.zeros((), jnp.float32)
    for name, total in output.terms.items():
        whole = task.loss_terms[name].bounded(Total(total.sum, weights[name]))
        value += coefficients[name] * whole.mean()
    return value, output


def split_batch(batch: Batch, parts: int) -> Batch:
    """`[B, ...]` to `[parts, B / parts, ...]` by strides, so that no row leaves its device."""

    def split(x: jax.Array) -> jax.Array:
        x = jnp.swapaxes(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 0, 1)
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty or not {"data", "fsdp"} <= set(mesh.axis_names):
            return x
        return jax.lax.with_sharding_constraint(x, PartitionSpec(None, ("data", "fsdp")))

    return jax.tree.map(split, batch)


def batch_gradients(
    task: Task,
    optimizer: Optimizer,
    accumulation: int,
    coefficients: Coefficients,
    state: TrainState,
    context: Context,
    batch: Batch,
) -> BatchGradients:
    """Gradients of `coefficients` times the terms, over `accumulation` micro-batches."""

    def micro(context, batch, key, weights) -> BatchGradients:
        return _micro_gradients(
            task, optimizer, coefficients, state.params, context, batch, key, weights
        )

    keys = jax.vmap(lambda i: jax.random.fold_in(context.update_key, i))(jnp.arange(accumulation))
    if accumulation == 1:
        # A single part has the weights of the whole batch.
        return micro(context, batch, keys[0], None)

    parts = split_batch(batch, accumulation)
    weights = _batch_weights(task, state.params, context, parts, keys)

    def accumulate(carry: BatchGradients, inputs: tuple) -> tuple[BatchGradients, None]:
        part, key, number = inputs
        here = replace(context, model_state=carry.model_state, part=number)
        return _added(carry, micro(here, part, key, weights)), None

    # The first micro-batch stands before the loop: it gives the carry its shapes.
    first, rest = jax.tree.map(lambda x: x[0], parts), jax.tree.map(lambda x: x[1:], parts)
    start = micro(context, first, keys[0], weights)
    added, _ = jax.lax.scan(accumulate, start, (rest, keys[1:], jnp.arange(1, accumulation)))
    return added


def _batch_weights(
    task: Task, params: PyTree, context: Context, parts: Batch, keys: jax.Array
) -> dict[str, jax.Array]:
    """The weight of each term in the whole batch."""

    def weigh(_, inputs):
        part, key = inputs
        # `model_state` and `part` are those of the first micro-batch: no weight may depend on them.
        output = task.loss(params, replace(context, probes=probes_of(task, part)), part, key)
        return None, {name: total.weight for name, total in output.terms.items()}

    weights = jax.lax.stop_gradient(jax.lax.scan(weigh, None, (parts, keys))[1])
    return jax.tree.map(jnp.sum, weights)


def _micro_gradients(
    task, optimizer, coefficients, params, context, batch, key, weights
) -> BatchGradients:
    probes = probes_of(task, batch)
    # Frozen leaves are no arguments of the loss, and so cost no gradient.
    trained = optimizer.trained(params)

    def value(trained, probes):
        whole = optimizer.whole(trained, params)
        here = replace(context, probes=probes)
        return objective(task, coefficients, whole, here, batch, key, weights)

    (gradients, probe_gradients), output = jax.grad(value, argnums=(0, 1), has_aux=True)(
        trained, probes
    )
    model_state = output.model_state
    if isinstance(task, Probing) and probes is not None:
        model_state = task.absorb(model_state, probe_gradients)
    return BatchGradients(
        jax.tree.map(lambda g: g.astype(jnp.float32), gradients),
        probe_gradients,
        output.terms,
        output.metrics,
        output.suppress,
        jax.lax.stop_gradient(model_state),
        output.update_rows,
    )


def _added(a: BatchGradients, b: BatchGradients) -> BatchGradients:
    """Both micro-batches together; the model state is that of the later one."""

    def total(x: PyTree, y: PyTree) -> PyTree:
        return jax.tree.map(jnp.add, x, y)

    def either(x: PyTree, y: PyTree) -> PyTree:
        return jax.tree.map(jnp.logical_or, x, y)

    return BatchGradients(
        total(a.gradients, b.gradients),
        total(a.probes, b.probes),
        total(a.terms, b.terms),
        total(a.metrics, b.metrics),
        either(a.suppress, b.suppress),
        b.model_state,
        either(a.update_rows, b.update_rows),
    )


def make_term_gradients(
    task: Task, optimizer: Optimizer, accumulation: int, total: int
) -> Callable[[TrainState, Batch, PyTree], dict[str, dict[str, jax.Array]]]:
    """`(state, batch, resident) -> {term: {group: gradient norm}}` of the terms as weighted now.

    Micro-batches are those of the step, so that the norms are of what an update would use.
    """

    def term_gradients(state: TrainState, batch: Batch, resident: PyTree):
        context = context_of(state, resident, total)
        weighted = coefficients_of(task, state)
        norms = {}
        for name in task.loss_terms:
            # A factor of zero, because the loss returns every declared term: none can be left out.
            only = {n: weighted[n] if n == name else jnp.zeros_like(weighted[n]) for n in weighted}
            found = batch_gradients(task, optimizer, accumulation, only, state, context, batch)
            norms[name] = group_norms(found.gradients, optimizer.trained_labels)
        return norms

    return term_gradients
