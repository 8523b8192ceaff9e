"""The optimizer builder: Adam moments for the whole tree, one learning rate per group.

AdamW with decoupled decay (Loshchilov & Hutter 2019). The moments are one
`optax.ScaleByAdamState` whose `mu` and `nu` have the structure of the parameters, so that a task
whose population changes can edit them leaf by leaf. Which leaves are decayed is decided by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from training.config import GroupConfig, OptimizerConfig
from training.errors import ConfigError
from training.paths import compile_pattern, map_named, named_leaves
from training.schedules import Schedule, check_schedule, make_schedule, warmup_updates
from training.typed import suggestion

PyTree = Any


def match_rules(
    path: str, rules: Sequence[tuple[str, Any]], purpose: str, used: set[str] | None = None
) -> Any:
    """Value of the first rule whose regex matches the whole leaf path; notes it in `used`."""
    for pattern, value in rules:
        if compile_pattern(pattern, f"the {purpose} rules").fullmatch(path):
            if used is not None:
                used.add(pattern)
            return value
    raise ConfigError(f"no {purpose} rule matches the parameter {path}; add a rule for it")


def label_by_rules(params: PyTree, rules: Sequence[tuple[str, str]]) -> PyTree:
    """A group label for each leaf by ordered (regex, label) rules; every rule must be of use.

    Raises:
      ConfigError: a leaf that no rule matches, or a rule that no leaf is left for.
    """
    used: set[str] = set()
    labels = map_named(lambda path, _: match_rules(path, rules, "optimizer group", used), params)
    for pattern, label in rules:
        if pattern not in used:
            raise ConfigError(
                f"the rule {pattern!r} of the optimizer group {label!r} matches no parameter (or "
                f"only those of rules before it); parameters are "
                f"{', '.join(list(named_leaves(params))[:8])}, ..."
            )
    return labels


@dataclass(frozen=True)
class Optimizer:
    """Pure functions of one optimizer; build it with `build_optimizer`.

    Attributes:
      labels: group label of each leaf.
      schedules: group label -> learning rate as a function of applied updates.
      decayed: whether each leaf has weight decay.
    """

    labels: PyTree
    schedules: Mapping[str, Schedule]
    decayed: PyTree
    weight_decay: Mapping[str, float]
    adam: optax.GradientTransformation

    def init(self, params: PyTree) -> optax.OptState:
        return self.adam.init(params)

    def learning_rates(self, applied: jax.Array) -> dict[str, jax.Array]:
        return {label: schedule(applied) for label, schedule in self.schedules.items()}

    def update(
        self, gradients: PyTree, opt_state: optax.OptState, params: PyTree, applied: jax.Array
    ) -> tuple[PyTree, optax.OptState, dict[str, jax.Array]]:
        """Additive updates, the new moments, and the learning rates that were used."""
        rates = self.learning_rates(applied)
        directions, opt_state = self.adam.update(gradients, opt_state, params)

        def change(direction, parameter, label, decayed):
            if decayed and self.weight_decay[label]:
                direction = direction + self.weight_decay[label] * parameter
            return -rates[label] * direction

        return (
            jax.tree.map(change, directions, params, self.labels, self.decayed),
            opt_state,
            rates,
        )

    def decay_table(self) -> list[tuple[str, str, bool]]:
        """(leaf path, group, decayed) of every parameter, for the report and for tests."""
        decayed = named_leaves(self.decayed)
        return [(path, label, decayed[path]) for path, label in named_leaves(self.labels).items()]


def _overrides(config: OptimizerConfig, names: list[str]) -> dict[str, GroupConfig]:
    found: dict[str, GroupConfig] = {}
    for group in config.groups:
        if group.name not in names:
            raise ConfigError(
                f"config.optimizer.groups names {group.name!r}{suggestion(group.name, names)}"
            )
        if group.name in found:
            raise ConfigError(
                f"config.optimizer.groups names {group.name!r} twice; keep one of them"
            )
        found[group.name] = group
    return found


def build_optimizer(
    config: OptimizerConfig,
    labels: PyTree,
    total_updates: int,
    learning_rate_scales: Mapping[str, float] | None = None,
    bias_correction: bool = True,
) -> Optimizer:
    """The optimizer of a run, with every schedule checked over three horizons.

    `learning_rate_scales` and `bias_correction` (of Adam's moments) are the task's.

    Raises:
      ConfigError: overrides for a group that does not exist, a leaf without a weight-decay rule, or
        a schedule that breaks the contract of `training.schedules`.
    """
    scales = dict(learning_rate_scales or {})
    names = sorted(set(jax.tree.leaves(labels)))
    overrides = _overrides(config, names)
    for name in scales:
        if name not in names:
            raise ConfigError(
                f"the task scales the learning rate of {name!r}, but the optimizer groups are "
                f"{', '.join(names)}"
            )
    schedules: dict[str, Schedule] = {}
    weight_decay: dict[str, float] = {}
    for name in names:
        group = overrides.get(name, GroupConfig(name))
        base = config.learning_rate if group.learning_rate is None else group.learning_rate
        shape = group.schedule or config.schedule
        schedule = make_schedule(shape, base * scales.get(name, 1.0), total_updates)
        check_schedule(schedule, warmup_updates(shape, total_updates), total_updates, name)
        schedules[name] = schedule
        weight_decay[name] = (
            config.weight_decay if group.weight_decay is None else group.weight_decay
        )
    decayed = map_named(
        lambda path, _: match_rules(path, config.decay_rules, "weight decay"), labels
    )
    make_adam = optax.scale_by_adam if bias_correction else _scale_by_plain_moments
    adam = make_adam(config.b1, config.b2, config.eps)
    return Optimizer(labels, schedules, decayed, weight_decay, adam)


def _scale_by_plain_moments(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Adam's direction m / (sqrt(v) + eps) of moments that start at zero and are not corrected.

    The correction counts updates of the whole array, which is wrong for a row that was left out of
    some (Mallick et al., "Taming 3DGS", 2024, update rows like this).
    """

    def update(updates, state, params=None):
        del params
        mu = jax.tree.map(lambda g, m: b1 * m + (1 - b1) * g, updates, state.mu)
        nu = jax.tree.map(lambda g, v: b2 * v + (1 - b2) * g * g, updates, state.nu)
        directions = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu)
        return directions, optax.ScaleByAdamState(state.count + 1, mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam(b1, b2, eps).init, update)


def global_norm(tree: PyTree) -> jax.Array:
    """Euclidean norm over all leaves, accumulated in fp32."""
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares, jnp.zeros((), jnp.float32)))


def group_norms(tree: PyTree, labels: PyTree) -> dict[str, jax.Array]:
    """Euclidean norm of each group's leaves."""
    groups: dict[str, list[jax.Array]] = {}
    for leaf, label in zip(jax.tree.leaves(tree), jax.tree.leaves(labels)):
        groups.setdefault(label, []).append(leaf)
    return {label: global_norm(leaves) for label, leaves in groups.items()}


def clip_scale(norm: jax.Array, clip_norm: float | None) -> jax.Array:
    """Factor that brings a gradient of this norm to at most `clip_norm` (torch's epsilon 1e-6)."""
    if clip_norm is None:
        return jnp.ones((), jnp.float32)
    return jnp.minimum(1.0, clip_norm / (norm + 1e-6))
