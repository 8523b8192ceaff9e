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
# The group of leaves that are never trained: no gradient, no moments, no guards.
FROZEN = "frozen"


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
      weight_decay: group label -> factor.
      adam: the moments of the trained leaves and the direction that follows from them.
    """

    labels: PyTree
    schedules: Mapping[str, Schedule]
    decayed: PyTree
    weight_decay: Mapping[str, float]
    adam: optax.GradientTransformation

    def trained(self, tree: PyTree) -> PyTree:
        """A tree like the parameters without the frozen leaves: None stands in their place."""
        return _without_frozen(tree, self.labels)

    def whole(self, trained: PyTree, params: PyTree) -> PyTree:
        """The inverse of `trained`: the frozen leaves come from `params`."""
        # To jax None is an empty tree, so that without `is_leaf` the two structures would differ.
        return jax.tree.map(
            lambda new, old: old if new is None else new,
            trained,
            params,
            is_leaf=lambda leaf: leaf is None,
        )

    @property
    def trained_labels(self) -> PyTree:
        """`labels`, with None for the frozen leaves."""
        return self.trained(self.labels)

    def init(self, params: PyTree) -> Any:
        """Moments of zero for what is trained: an `optax.ScaleByAdamState`."""
        return self.adam.init(self.trained(params))

    def learning_rates(self, applied: jax.Array) -> dict[str, jax.Array]:
        """Group label -> fp32 scalar, at the update after `applied` others."""
        return {label: schedule(applied) for label, schedule in self.schedules.items()}

    def update(
        self, gradients: PyTree, opt_state: Any, trained: PyTree, applied: jax.Array
    ) -> tuple[PyTree, Any, dict[str, jax.Array]]:
        """Additive updates of what is trained, the new moments, and the learning rates used."""
        rates = self.learning_rates(applied)
        directions, opt_state = self.adam.update(gradients, opt_state, trained)

        def change(direction, parameter, label, decayed):
            # Beside Adam's direction and not in the gradient: the moments never see the decay.
            if decayed and self.weight_decay[label]:
                direction = direction + self.weight_decay[label] * parameter
            return -rates[label] * direction

        labels, decayed = self.trained_labels, self.trained(self.decayed)
        return jax.tree.map(change, directions, trained, labels, decayed), opt_state, rates

    def decay_table(self) -> list[tuple[str, str, bool]]:
        """(leaf path, group, decayed) of every parameter, for the report and for tests."""
        decayed = named_leaves(self.decayed)
        return [
            (path, label, decayed[path] and label != FROZEN)
            for path, label in named_leaves(self.labels).items()
        ]


def _without_frozen(tree: PyTree, labels: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf, label: None if label == FROZEN else leaf, tree, labels)


def _overrides(config: OptimizerConfig, names: list[str]) -> dict[str, GroupConfig]:
    """The settings of each group, empty ones where the config has none."""
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
    return {name: found.get(name, GroupConfig(name)) for name in names}


def build_optimizer(config: OptimizerConfig, labels: PyTree, total_updates: int) -> Optimizer:
    """The optimizer of a run, with every schedule checked over three horizons.

    Args:
      labels: group label of each parameter; `FROZEN` ones are left out of everything.

    Raises:
      ConfigError: overrides for a group that does not exist, a leaf without a weight-decay rule,
        nothing to train, or a schedule that breaks the contract of `training.schedules`.
    """
    names = sorted(set(jax.tree.leaves(labels)) - {FROZEN})
    if not names:
        raise ConfigError("every parameter is in the group frozen, so there is nothing to train")
    groups = _overrides(config, names)
    schedules: dict[str, Schedule] = {}
    for name in names:
        base = _either(groups[name].learning_rate, config.learning_rate)
        shape = groups[name].schedule or config.schedule
        schedules[name] = make_schedule(shape, base, total_updates)
        check_schedule(schedules[name], warmup_updates(shape, total_updates), total_updates, name)
    decayed = map_named(
        lambda path, _: match_rules(path, config.decay_rules, "weight decay"), labels
    )
    return Optimizer(
        labels,
        schedules,
        decayed,
        {name: _either(groups[name].weight_decay, config.weight_decay) for name in names},
        _adam(
            config,
            _without_frozen(labels, labels),
            {name: _either(groups[name].bias_correction, config.bias_correction) for name in names},
        ),
    )


def _either(own: Any, common: Any) -> Any:
    """A group's own setting where it has one; 0 and False are settings, None is not."""
    return common if own is None else own


def _adam(
    config: OptimizerConfig, labels: PyTree, corrected: Mapping[str, bool]
) -> optax.GradientTransformation:
    """Adam's direction, with its moments corrected for their start at zero in some groups only.

    The correction counts updates of a whole array, which is wrong where a row was left out of some
    (Mallick et al., "Taming 3DGS", 2024, update rows like this): such groups go without it.
    """
    adam = optax.scale_by_adam(config.b1, config.b2, config.eps)
    if all(corrected.values()):
        return adam
    b1, b2 = config.b1, config.b2

    def update(updates, state, params=None):
        del params
        count = state.count + 1
        mu = jax.tree.map(lambda g, m: b1 * m + (1 - b1) * g, updates, state.mu)
        nu = jax.tree.map(lambda g, v: b2 * v + (1 - b2) * g * g, updates, state.nu)

        def direction(m, v, label):
            if corrected[label]:
                m, v = m / (1 - b1**count), v / (1 - b2**count)
            return m / (jnp.sqrt(v) + config.eps)

        return jax.tree.map(direction, mu, nu, labels), optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(adam.init, update)


def global_norm(tree: PyTree) -> jax.Array:
    """Euclidean norm over all leaves, accumulated in fp32."""
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares, jnp.zeros((), jnp.float32)))


def group_norms(tree: PyTree, labels: PyTree) -> dict[str, jax.Array]:
    """Euclidean norm of each group's leaves."""
    groups: dict[str, list[jax.Array]] = {}
    # Frozen leaves are None in both trees, and None is no leaf: the two stay in step.
    for leaf, label in zip(jax.tree.leaves(tree), jax.tree.leaves(labels)):
        groups.setdefault(label, []).append(leaf)
    return {label: global_norm(leaves) for label, leaves in groups.items()}


def clip_scale(norm: jax.Array, clip_norm: float | None) -> jax.Array:
    """Factor that brings a gradient of this norm to at most `clip_norm` (torch's epsilon 1e-6)."""
    if clip_norm is None:
        return jnp.ones((), jnp.float32)
    return jnp.minimum(1.0, clip_norm / (norm + 1e-6))
