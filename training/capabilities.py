"""What only some systems can do. A task lists its capabilities as base classes.

    class SceneTask(Task, Probing, Refreshable, Resizable): ...

The core asks `isinstance(task, Refreshable)`; a task that lacks a capability meets nothing of it.
Every method is a pure function of its inputs and of the frozen task object.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import jax

from training.config import GuardConfig, OptimizerConfig
from training.loss import Batch, Context
from training.verdict import Verdict, Watch

if TYPE_CHECKING:
    from training.state import TrainState

PyTree = Any
# Ordered (regex on the leaf path of the state, axis name per dimension or None).
ShardingRules = tuple[tuple[str, tuple[str | None, ...]], ...]
History = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Cadence:
    """The steps that `every` divides, after `start` and before `stop`.

    Steps are consumed batches, so that suppressed updates count too.
    """

    every: int
    start: int = 0
    stop: int | None = None

    def due(self, step: int) -> bool:
        """Whether it is time before the update that follows `step`."""
        # Both ends are excluded: with the default `start` nothing is due before the first update.
        inside = step > self.start and (self.stop is None or step < self.stop)
        return inside and step % self.every == 0


def _no_start(state: TrainState, batch: Batch, resident: PyTree) -> list[Verdict]:
    del state, batch, resident
    return []


def _no_watches(config: GuardConfig) -> list[Watch]:
    del config
    return []


def _no_verdicts(history: History) -> list[Verdict]:
    del history
    return []


@dataclass(frozen=True)
class Guards:
    """The checks that a system adds to those of the core.

    Attributes:
      names: every guard of the system, for `config.guards.off` and docs/failures.md.
      quiet_groups: group label -> applied updates before which a gradient of exactly zero is right.
      start: proofs before the first update (for instance: the loss sees the pixels).
      watches: guards over the metrics of every update; new ones for each launch.
      evaluation: checks on the evaluation metrics so far, oldest first.
      refresh: checks on the ledger rows of refreshes so far, oldest first.
    """

    names: tuple[str, ...] = ()
    quiet_groups: Mapping[str, int] = field(default_factory=dict)
    start: Callable[[TrainState, Batch, PyTree], list[Verdict]] = _no_start
    watches: Callable[[GuardConfig], Sequence[Watch]] = _no_watches
    evaluation: Callable[[History], list[Verdict]] = _no_verdicts
    refresh: Callable[[History], list[Verdict]] = _no_verdicts


class Augmented:
    """A task that changes its examples at random."""

    def without_augmentation(self) -> Self:
        """This task on unmodified examples, for the overfit test."""
        raise NotImplementedError


class Averaged:
    """A task that says what the EMA follows; that of any other task follows all parameters."""

    def averaged(self, params: PyTree, model_state: PyTree) -> PyTree:
        """The floating-point subtree that the EMA follows."""
        raise NotImplementedError


class OptimizerOwner:
    """A task whose optimizer settings follow from more than `config.optimizer`."""

    def optimizer(self) -> OptimizerConfig:
        """The settings of the run (for instance a learning rate in units of the scene)."""
        raise NotImplementedError


class Inheriting:
    """A task that takes arrays over from a run whose state has another form (other classes).

    Both methods work on leaves by path (`params/head/kernel`), as `training.paths` names them.
    """

    def saved_form(
        self,
        initial: Mapping[str, jax.Array],
        saved: Collection[str],
        facts: Mapping[str, Any],
    ) -> dict[str, Any]:
        """The leaves as the earlier run has them, in the shapes and at the paths that it has.

        Args:
          initial: leaves of parameters, model state and average, of this task.
          saved: paths in the earlier run's checkpoint.
          facts: `metadata()` of its task.

        Returns:
          Arrays, or `jax.ShapeDtypeStruct` with a sharding for what is to be changed.
        """
        raise NotImplementedError

    def inherited(
        self,
        restored: Mapping[str, Any],
        initial: Mapping[str, jax.Array],
        facts: Mapping[str, Any],
    ) -> tuple[dict[str, jax.Array], list[str]]:
        """The leaves of `initial` with what was taken over, and sentences for the user.

        Args:
          restored: as `saved_form`, with arrays for what was taken over; the settings may leave
            some out, which are then as they were given.
        """
        raise NotImplementedError


class Witnessed:
    """A task whose checkpoints carry figures that whoever starts from one must find again.

    They are saved as the fact `witness`. Arrays that are complete and of the right shape may still
    mean something else under other units, another sequence or another kind of density.
    """

    def witness(self, state: TrainState, resident: PyTree) -> dict[str, float]:
        """Figures of a state on fixed examples with fixed randomness, the same on every process."""
        raise NotImplementedError


class Sharded:
    """A task that says how its state lies on the mesh, after the rules of the config."""

    sharding_rules: ShardingRules = ()


class Probing:
    """A task that wants gradients of further inputs of its loss, without side channels."""

    def probes(self, batch: Batch) -> PyTree:
        """Extra zero inputs of the loss whose gradients are wanted, or None."""
        raise NotImplementedError

    def absorb(self, model_state: PyTree, probe_gradients: PyTree) -> PyTree:
        """Model state that has taken in the gradients of the probes of a micro-batch."""
        return model_state

    def gradient_metrics(
        self, gradients: PyTree, probe_gradients: PyTree, model_state: PyTree
    ) -> dict[str, jax.Array]:
        """fp32 scalars to log of the gradients of an update, before clipping.

        Both gradients are those of the whole batch: added over its micro-batches.
        """
        return {}


class Projecting:
    """A task that changes parameters after each optimizer update (noise, projections)."""

    def after_update(
        self,
        params: PyTree,
        model_state: PyTree,
        applied: jax.Array,
        learning_rates: Mapping[str, jax.Array],
        key: jax.Array,
    ) -> tuple[PyTree, PyTree]:
        """The parameters and the model state after the change."""
        raise NotImplementedError


class Refreshable:
    """A task that rewrites its whole state on a cadence (densification, a cache)."""

    refresh_cadence: Cadence | None = None
    # A refresh after which the loss is another one: guards that compare with the past begin anew.
    refresh_changes_loss: bool = True

    def refresh(
        self, state: TrainState, context: Context, batch: Batch
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """The new state and a ledger row; may change params, moments and model state together.

        Args:
          context: of the state, with `update_key` for this refresh and the resident arrays.
          batch: `[batch, ...]` of the update that follows.
        """
        raise NotImplementedError


class Resizable:
    """A task whose static sizes may grow, and shrink; the step is compiled anew each time."""

    # Reasons in `LossOutput.suppress` after which `resize` is called and the batch is replayed.
    replay_reasons: tuple[str, ...] = ()

    def resize_reason(self, ledger: Mapping[str, float]) -> str | None:
        """Why the capacity must grow, judged from a ledger row on the host; None if it need not."""
        return None

    def resize(self, state: TrainState, reason: str) -> tuple[Self, TrainState]:
        """A task and state of larger capacity (host side, rare)."""
        raise NotImplementedError

    # Updates after which it is asked for less room, each time anew; 0: never.
    room_window: int = 0

    def spared(self, peaks: Mapping[str, float]) -> tuple[Self, str] | None:
        """A task with less room for the same state, and a sentence about it; None to stay.

        It must not alternate with `resize` for ever.

        Args:
          peaks: the largest value of each metric of an update, in the last window.
        """
        return None


class Varied:
    """A task with several static shapes, each compiled once (image sizes, numbers of samples).

    Examples of a varied task must have the shapes of the variant at their position in the stream:
    `source.load(index, position)` belongs to the update `position // batch_size`.
    """

    variants: tuple[Hashable, ...] = ()

    def variant(self, step: int) -> Hashable:
        """Which of `variants` the update that follows `step` uses; a pure function."""
        raise NotImplementedError

    def as_variant(self, variant: Hashable) -> Self:
        """This task with the static shapes of a variant."""
        raise NotImplementedError
