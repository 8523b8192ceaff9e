"""The Task protocol: what a system must provide so that `training.loop.fit` can train it.

Every method is a pure function of its inputs and of the (frozen) task object. A task is either
fed from host batches (volumes, images) or by indices into `resident` device arrays (views of a
scene); its parameters may change in number at a declared cadence (`refresh`) or by a rare resize.

Vocabulary: *update* one optimizer update; *step* one consumed global batch (an update or a
suppressed one); *applied* updates really made (`step - skipped`); *term* a named part of the loss;
*group* a label that the optimizer gives to parameters that share a learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, runtime_checkable

import jax
import numpy as np

from training.errors import ConfigError

if TYPE_CHECKING:
    from training.config import GuardConfig, OptimizerConfig, TrainConfig
    from training.guards.watch import Watch
    from training.mesh import Layout
    from training.state import TrainState

PyTree = Any
Batch = dict[str, jax.Array]
Example = dict[str, np.ndarray]
# Ordered (regex on the leaf path of the state, axis name per dimension or None).
ShardingRules = tuple[tuple[str, tuple[str | None, ...]], ...]


@runtime_checkable
class Source(Protocol):
    """Random access to examples. `fingerprint` changes whenever any example may have changed."""

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def identity(self, index: int) -> str:
        """What must not be shared between training and evaluation (a participant, a view)."""
        ...


@dataclass(frozen=True)
class Sources:
    """The examples to learn from and, by name, those to evaluate on."""

    train: Source
    evaluation: Mapping[str, Source]


class Total(NamedTuple):
    """A sum and the weight that it is divided by, both fp32 scalars."""

    sum: jax.Array
    weight: jax.Array

    def mean(self) -> jax.Array:
        """The quotient; zero where the weight is zero."""
        safe = jax.numpy.where(self.weight > 0, self.weight, 1.0)
        return jax.numpy.where(self.weight > 0, self.sum / safe, 0.0)


@dataclass(frozen=True)
class LossTerm:
    """Declares one term of the loss. A term contributes `coefficient * sum / weight`.

    Attributes:
      coefficient: a number, or a pure function of the applied updates.
      required: the run is stopped when the term is exactly constant or zero for long.
      window: applied updates [start, stop) in which the term is active; None is always.
      share_cap: largest share of the total loss that the term may take while it is active.
    """

    coefficient: float | Callable[[jax.Array], jax.Array] = 1.0
    required: bool = True
    window: tuple[int, int] | None = None
    share_cap: float | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Context:
    """What a loss may read besides parameters and batch.

    Attributes:
      ema: averaged parameters, as selected by `Task.ema_select`, or None.
      model_state: non-differentiated state (statistics, masks, counters).
      applied: int32 scalar, updates made so far.
      update_key: PRNG key shared by all micro-batches of the update; fold in
        `batch["position"]` for randomness that belongs to an example.
      resident: device arrays from `Task.resident`, never donated.
      probes: zeros from `Task.probes`; their gradients go to `Task.absorb`.
      part: number of the micro-batch inside of its update.
    """

    ema: PyTree
    model_state: PyTree
    applied: jax.Array
    update_key: jax.Array
    resident: PyTree = None
    probes: PyTree = None
    part: jax.Array | int = 0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossOutput:
    """Result of one loss evaluation on one micro-batch.

    Attributes:
      terms: one `Total` for each declared term, under the declared names.
      model_state: the new non-differentiated state.
      metrics: further totals to log, averaged over the update.
      suppress: reason -> bool scalar; True leaves the whole state bit-identical.
      update_rows: None, or a pytree prefix of `params` with bool arrays on the leading axis:
        rows that are False keep their parameter and optimizer moments.
    """

    terms: dict[str, Total]
    model_state: PyTree
    metrics: dict[str, Total] = field(default_factory=dict)
    suppress: dict[str, jax.Array] = field(default_factory=dict)
    update_rows: PyTree = None


@dataclass(frozen=True)
class Cadence:
    """Every `every` applied updates, from `start` on and before `stop`."""

    every: int
    start: int = 0
    stop: int | None = None

    def due(self, applied: int) -> bool:
        inside = applied > self.start and (self.stop is None or applied < self.stop)
        return inside and applied % self.every == 0


@dataclass(frozen=True)
class Evaluation:
    """Metrics, pictures and tables of one evaluation.

    Attributes:
      metrics: name -> value, identical on every process; written as `eval/<name>`.
      images: name -> uint8 `[height, width, 3]` of this process, which writes them as
        `artifacts/<step>/<name>.png`; the names of different processes differ.
      tables: file name -> table (a score for each class), written by the main process.
    """

    metrics: dict[str, float]
    images: dict[str, np.ndarray] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check, with the sentence that the user reads.

    A verdict that did not pass stops the run, unless it is only a `warning`.
    """

    name: str
    passed: bool
    sentence: str
    warning: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the report."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Description:
    """Facts about the task that need no data.

    Attributes:
      parameter_counts: name of a part -> number of parameters.
      flops_per_example: floating-point operations of one training example (forward and backward).
      batch_keys: key required in a batch -> (shape of one example, dtype name).
    """

    parameter_counts: dict[str, int]
    flops_per_example: float
    batch_keys: dict[str, tuple[tuple[int, ...], str]]


class Task(Protocol):
    """One system, configured. Subclass it; the methods with a body are optional."""

    loss_terms: Mapping[str, LossTerm]

    # Reasons in `LossOutput.suppress` after which `resize` is called and the batch is replayed.
    replay_reasons: tuple[str, ...] = ()
    refresh_cadence: Cadence | None = None
    # How the state lies on the mesh, after the rules of the config.
    sharding_rules: ShardingRules = ()
    # Group label -> applied updates before which an exactly zero gradient is legitimate.
    quiet_groups: Mapping[str, int] = {}
    # Updates at the start of the run of which every one is logged.
    logged_first: int = 1
    # False for tasks that update rows of a parameter at different times (`update_rows`).
    adam_bias_correction: bool = True

    def sources(self) -> Sources: ...

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        """Initial `(params, model_state)`; traceable, all leaves fp32, int32 or bool."""
        ...

    def loss(self, params: PyTree, context: Context, batch: Batch, key: jax.Array) -> LossOutput:
        """The loss of one micro-batch. `key` differs between micro-batches."""
        ...

    def optimizer_groups(self, params: PyTree) -> PyTree:
        """A group label (str) for each leaf; see `training.optimizer.label_by_rules`."""
        ...

    def evaluate(self, state: TrainState, source: Source, layout: Layout) -> Evaluation:
        """Metrics on `source`; called on every process, with identical results on each."""
        ...

    def describe(self) -> Description: ...

    def resident(self) -> PyTree:
        """Arrays to keep on the devices for the whole run (images of a scene)."""
        return None

    def ema_select(self, params: PyTree) -> PyTree:
        """The subtree of the parameters that is averaged."""
        return params

    def optimizer_settings(self, config: TrainConfig) -> OptimizerConfig:
        """The optimizer of a run; may follow from other settings of the config (the batch size)."""
        return config.optimizer

    def learning_rate_scales(self) -> Mapping[str, float]:
        """Group label -> factor known to the task only (the scale of a scene)."""
        return {}

    def probes(self, batch: Batch) -> PyTree:
        """Extra zero inputs of the loss whose gradients are wanted, or None."""
        return None

    def absorb(self, model_state: PyTree, probe_gradients: PyTree) -> PyTree:
        """Model state that has taken in the gradients of the probes."""
        return model_state

    def gradient_metrics(
        self, gradients: PyTree, probe_gradients: PyTree, model_state: PyTree
    ) -> dict[str, jax.Array]:
        """fp32 scalars to log of the gradients of an update, before clipping.

        Both gradients are those of the whole batch: added over its micro-batches.
        """
        return {}

    def after_update(
        self,
        params: PyTree,
        model_state: PyTree,
        applied: jax.Array,
        learning_rates: Mapping[str, jax.Array],
        key: jax.Array,
    ) -> tuple[PyTree, PyTree]:
        """Changes made after each optimizer update (noise, projections)."""
        return params, model_state

    def refresh(self, state: TrainState, key: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        """At `refresh_cadence`: rewrites params, moments and model state; returns a ledger row."""
        return state, {}

    def resize_reason(self, ledger: Mapping[str, float]) -> str | None:
        """Why the capacity must grow, judged from a ledger row on the host; None if it need not."""
        return None

    def resize(self, state: TrainState, reason: str) -> tuple[Self, TrainState]:
        """A task and state of larger capacity (host side, rare; the step is compiled anew)."""
        raise ConfigError(f"this system has no capacity that could grow (asked because: {reason})")

    def metadata(self) -> dict[str, Any]:
        """JSON saved in each checkpoint: what `with_metadata` needs to rebuild the shapes."""
        return {}

    def with_metadata(self, metadata: Mapping[str, Any]) -> Self:
        """This task with the shapes that a checkpoint's metadata describes."""
        return self

    def start_guards(self, state: TrainState, batch: Batch, resident: PyTree) -> list[Verdict]:
        """System-specific proofs before the first step (for instance: the loss sees the pixels)."""
        return []

    def tables(self) -> dict[str, Table]:
        """Tables of the report that are known at the start, by file name (data account)."""
        return {}

    def evaluation_guards(self, history: Sequence[Mapping[str, float]]) -> list[Verdict]:
        """Checks on the evaluation metrics so far, oldest first (collapse, too good to be true)."""
        return []

    def watches(self, config: GuardConfig) -> Sequence[Watch]:
        """The system's own guards over the metrics of every update; new ones for each launch."""
        return []

    def refresh_guards(self, ledger: Sequence[Mapping[str, float]]) -> list[Verdict]:
        """Checks on the ledger rows so far, oldest first."""
        return []

    def without_augmentation(self) -> Self:
        """This task on unmodified examples, for the overfit test."""
        return self

    def overfit_verdict(self, before: Evaluation, after: Evaluation) -> Verdict:
        """Whether fixed examples were learned, by the system's own success metric."""
        ...
