"""What a system must provide so that `training.loop.fit` can train it.

Every method is a pure function of its inputs and of the frozen task object. A task is either fed
from host batches (volumes, images) or by indices into `resident` device arrays (views of a scene).
What only some systems need is a capability, see `training.capabilities`.

Vocabulary: *update* one optimizer update; *step* one consumed global batch (an update or a
suppressed one); *applied* updates really made (`step - skipped`); *term* a named part of the loss;
*group* a label that the optimizer gives to parameters that share a learning rate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import jax

from training.capabilities import Guards
from training.config import TrainConfig
from training.loss import Batch, Context, LossOutput, LossTerm
from training.source import Source, Sources
from training.verdict import Description, Evaluation, Table, Verdict

if TYPE_CHECKING:
    from training.mesh import Layout
    from training.state import TrainState

PyTree = Any


class Task(Protocol):
    """One system, configured; subclass it as a frozen dataclass.

    Methods that return a value here need not be overridden.
    """

    # The only config of a run; `with_config` gives the task of another one.
    config: Any
    loss_terms: Mapping[str, LossTerm]

    def sources(self) -> Sources:
        """The examples; asked for again at every evaluation, so that it should be cheap."""
        ...

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        """Initial `(params, model_state)`; traceable, all leaves fp32, int32 or bool."""
        ...

    def loss(self, params: PyTree, context: Context, batch: Batch, key: jax.Array) -> LossOutput:
        """The loss of one micro-batch. `key` differs between micro-batches."""
        ...

    def optimizer_groups(self, params: PyTree) -> PyTree:
        """A group label for each leaf (`training.optimizer.label_by_rules`).

        Leaves labeled `training.optimizer.FROZEN` have neither gradient, moments nor guards.
        """
        ...

    def evaluate(self, state: TrainState, source: Source, layout: Layout) -> Evaluation:
        """Metrics on `source`; called on every process, with identical metrics on each."""
        ...

    def describe(self) -> Description:
        """Facts about model and batch; opens no data."""
        ...

    def overfit_verdict(self, before: Evaluation, after: Evaluation) -> Verdict:
        """Whether fixed examples were learned, by the system's own success metric."""
        ...

    def resident(self) -> PyTree:
        """Arrays to keep on the devices for the whole run (images of a scene)."""
        return None

    def guards(self) -> Guards:
        """The system's own checks."""
        return Guards()

    def tables(self) -> dict[str, Table]:
        """Tables of the report that are known at the start, by file name (data account)."""
        return {}

    def metadata(self) -> dict[str, Any]:
        """JSON saved in each checkpoint: what `with_metadata` needs to use the model."""
        return {}

    def with_metadata(self, metadata: Mapping[str, Any]) -> Self:
        """This task with the shapes and facts that a checkpoint's metadata describes."""
        return self


AnyTask = TypeVar("AnyTask", bound=Task)


def with_config(task: AnyTask, config: TrainConfig) -> AnyTask:
    """The same task under another config."""
    return dataclasses.replace(task, config=config)  # type: ignore[type-var]
