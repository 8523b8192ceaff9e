"""Everything of a run that is compiled: state placement, the step, and what else needs them.

A `Program` is made once from a task and a mesh, and again when the task is resized. Restore,
evaluation, overfit and replay all use the same one, so that they cannot differ. Building it runs
nothing on the devices of the mesh: they may be those of a topology that is not attached.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from training import distributed
from training.capabilities import OptimizerOwner, Refreshable, Resizable, Sharded, Varied
from training.config import TrainConfig
from training.errors import ConfigError
from training.gradients import context_of, make_term_gradients
from training.loss import Batch
from training.mesh import Layout, check_batch, state_shardings
from training.optimizer import Optimizer, build_optimizer
from training.paths import named_leaves
from training.plan import make_plan
from training.schedules import ema_decay
from training.state import TrainState, new_state
from training.step import StepSettings, averaged, make_step
from training.task import Task
from training.verdict import Table

PyTree = Any
ReadMetrics = Callable[[], list[dict[str, float]]]
# Folded into the key of a step for the refresh before it; see also `step.AFTER_UPDATE`.
REFRESH = 0x7FFFFFFE
# What the stream adds to the keys of an example.
STREAM_KEYS = {"position": ((), "uint32"), "index": ((), "int32")}


def called(function: Callable[[], Any]) -> Any:
    """Calls a function, in the ordinary way."""
    return function()


class Program:
    """The compiled functions of one run. Call them inside `jax.set_mesh(layout.mesh)`.

    Attributes:
      task, layout: as given; the config is the task's.
      plan: every cadence of the run, in steps.
      abstract_state: shapes, dtypes and shardings of the train state.
      train_examples: length of the training source where it is known without opening data.
    """

    def __init__(self, task: Task, layout: Layout, train_examples: int | None = None):
        config: TrainConfig = task.config
        check_batch(config.batch_size, config.accumulation, layout.mesh)
        self.task, self.layout, self.train_examples = task, layout, train_examples
        self.plan = make_plan(task, train_examples)
        self.optimizer = self._build_optimizer()
        self.settings = StepSettings(
            self.plan.total,
            config.accumulation,
            config.optimizer.clip_norm,
            ema_decay(config.ema, self.plan.total),
        )
        # Nothing is computed: the mesh may be of devices that are not attached.
        shapes = jax.eval_shape(self._create)
        rules = task.sharding_rules if isinstance(task, Sharded) else ()
        self.shardings = state_shardings(shapes, layout.mesh, config.mesh, rules)
        self.abstract_state: TrainState = jax.tree.map(
            lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s),
            shapes,
            self.shardings,
        )
        self._steps: dict[tuple[int, Hashable], Callable] = {}
        self._metric_names: dict[tuple[int, Hashable], list[str]] = {}
        self._term_gradients: dict[Hashable, Callable] = {}

    @property
    def config(self) -> TrainConfig:
        return self.task.config

    @property
    def total_updates(self) -> int:
        """The horizon of schedules and of the run."""
        return self.plan.total

    @property
    def refresh_changes_loss(self) -> bool:
        """Whether the loss after a refresh is another one than before."""
        return isinstance(self.task, Refreshable) and self.task.refresh_changes_loss

    def _build_optimizer(self) -> Optimizer:
        # The key is made inside of the trace: outside it would be computed on the mesh.
        params, _ = jax.eval_shape(lambda: self.task.init(jax.random.key(0)))
        labels = self.task.optimizer_groups(params)
        if jax.tree.structure(labels) != jax.tree.structure(params):
            raise ConfigError("the task's optimizer groups do not cover exactly its parameters")
        task, settings = self.task, self.config.optimizer
        if isinstance(task, OptimizerOwner):
            settings = task.optimizer()
        return build_optimizer(settings, labels, self.plan.total)

    def _create(self) -> TrainState:
        key = jax.random.key(self.config.seed)
        params, model_state = self.task.init(jax.random.fold_in(key, 0))
        ema = None
        if self.settings.ema_decay is not None:
            # A copy: donated buffers must not be shared between parameters and average.
            ema = jax.tree.map(jnp.copy, averaged(self.task, params, model_state))
        run_key = jax.random.fold_in(key, 1)
        return new_state(params, model_state, self.optimizer.init(params), ema, run_key)

    def initial_state(self) -> TrainState:
        """The state at step 0, created in place on the mesh."""
        return jax.jit(self._create, out_shardings=self.shardings)()

    @cached_property
    def resident(self) -> PyTree:
        """The task's device arrays, replicated on the mesh, or None."""
        arrays = self.task.resident()
        return None if arrays is None else self.layout.replicate(arrays)

    @cached_property
    def abstract_resident(self) -> PyTree:
        """Shapes and shardings of `resident`; nothing is uploaded."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                np.shape(leaf), np.asarray(leaf).dtype, sharding=self.layout.replicated
            ),
            self.task.resident(),
        )

    def abstract_batches(
        self, updates: int = 1, variant: Hashable = None
    ) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and shardings of the batches `[updates, batch, ...]` of one call."""
        keys = self.task_of(variant).describe().batch_keys | STREAM_KEYS
        sharding = NamedSharding(self.layout.mesh, PartitionSpec(None, ("data", "fsdp")))
        size = self.config.batch_size
        return {
            name: jax.ShapeDtypeStruct((updates, size, *shape), dtype, sharding=sharding)
            for name, (shape, dtype) in keys.items()
        }

    def task_of(self, variant: Hashable) -> Task:
        """The task with the static shapes of a variant; the task itself where it has none."""
        if variant is None or not isinstance(self.task, Varied):
            return self.task
        return self.task.as_variant(variant)  # type: ignore[return-value]

    def step(
        self, state: TrainState, batches: Batch, variant: Hashable = None
    ) -> tuple[TrainState, ReadMetrics]:
        """Runs the updates of `batches` (`[updates, batch, ...]`); the state is donated.

        Returns:
          The new state and a function that waits for the metrics of each update. The metrics
          travel as one array, because one transfer per number would cost more than the step.
        """
        kind = (next(iter(batches.values())).shape[0], variant)
        self.compile_step(state, batches, variant)
        state, packed = self._steps[kind](state, batches, self.resident)
        names = self._metric_names[kind]

        def read() -> list[dict[str, float]]:
            # [updates, metrics], replicated: any device of this host has all of it.
            rows = np.asarray(packed.addressable_data(0), np.float64)
            return [dict(zip(names, row.tolist())) for row in rows]

        return state, read

    def compile_step(
        self,
        state: TrainState,
        batches: Batch,
        variant: Hashable = None,
        call: Callable[[Callable[[], Any]], Any] = called,
    ) -> None:
        """Compiles what `step` needs for these shapes, unless that was done before.

        Args:
          call: calls the compiler, which may be minutes in native code (in a thread, for instance).

        Raises:
          ConfigError: on all hosts, where they would run different programs: each would wait in a
            collective that the others do not have.
        """
        kind = (next(iter(batches.values())).shape[0], variant)
        if kind not in self._steps:
            function = self._compile(*kind)
            lowered = function.lower(state, batches, self.resident)
            if jax.process_count() > 1:
                distributed.assert_same("the program of the step", lowered.as_text())
            # The function finds the result again when it is called.
            call(lowered.compile)
            self._steps[kind] = function

    def is_compiled(self, updates: int, variant: Hashable = None) -> bool:
        """Whether a call of so many updates was made or prepared before."""
        return (updates, variant) in self._steps

    def _compile(self, updates: int, variant: Hashable) -> Callable:
        step = make_step(self.task_of(variant), self.optimizer, self.settings, updates)

        def packed(state: TrainState, batches: Batch, resident: PyTree):
            state, metrics = step(state, batches, resident)
            # A side effect of tracing, which comes before any result that needs the names.
            self._metric_names[updates, variant] = list(metrics)
            return state, jnp.stack([m.astype(jnp.float32) for m in metrics.values()], axis=-1)

        # Fixed places: a state that came back with others would have the next call compiled anew.
        return jax.jit(
            packed, donate_argnums=0, out_shardings=(self.shardings, self.layout.replicated)
        )

    def lower(self, updates: int = 1, variant: Hashable = None, batches: Any = None):
        """The lowered step for ahead-of-time compilation; nothing is uploaded.

        Args:
          batches: abstract batches of other shapes than the task describes (tests).
        """
        batches = self.abstract_batches(updates, variant) if batches is None else batches
        with jax.set_mesh(self.layout.mesh):
            return self._compile(updates, variant).lower(
                self.abstract_state, batches, self.abstract_resident
            )

    def term_gradients(
        self, state: TrainState, batch: Batch, variant: Hashable = None
    ) -> dict[str, dict[str, float]]:
        """Gradient norm of each loss term in each parameter group, for `[batch, ...]`."""
        if variant not in self._term_gradients:
            function = make_term_gradients(
                self.task_of(variant), self.optimizer, self.config.accumulation, self.plan.total
            )
            compiled = jax.jit(function, out_shardings=self.layout.replicated)
            self._term_gradients[variant] = compiled
        return jax.tree.map(float, self._term_gradients[variant](state, batch, self.resident))

    @cached_property
    def _refresh(self) -> Callable:
        task = self.task
        if not isinstance(task, Refreshable):
            raise TypeError(f"{type(task).__name__} is not refreshable")

        def refresh(state: TrainState, batch: Batch, resident: PyTree):
            key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), REFRESH)
            context = context_of(state, resident, self.plan.total, key)
            return task.refresh(state, context, batch)

        return jax.jit(
            refresh, donate_argnums=0, out_shardings=(self.shardings, self.layout.replicated)
        )

    def refresh(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, float]]:
        """The task's periodic rewrite of the state, and its ledger row.

        Args:
          batch: `[batch, ...]` of the update that follows.
        """
        state, ledger = self._refresh(state, batch, self.resident)
        return state, {name: float(value) for name, value in ledger.items()}

    def tables(self) -> dict[str, Table]:
        """Tables of the report: the task's own, and every parameter with how it is trained."""
        shapes = {
            path: leaf.shape for path, leaf in named_leaves(self.abstract_state.params).items()
        }
        rows = [
            (
                path,
                str(list(shapes[path])),
                math.prod(shapes[path]),
                group,
                "yes" if decays else "no",
            )
            for path, group, decays in self.optimizer.decay_table()
        ]
        columns = ("parameter", "shape", "count", "group", "weight decay")
        return {**self.task.tables(), "parameters": Table("Parameters", columns, rows)}

    def resized(self, state: TrainState, reason: str) -> tuple[Program, TrainState]:
        """A program of larger capacity and the state placed in it.

        Raises:
          ConfigError: the task has no capacity that could grow.
        """
        task = self.task
        if not isinstance(task, Resizable):
            raise ConfigError(f"this system has no capacity that could grow (asked for: {reason})")
        task, state = task.resize(state, reason)
        return self.of_task(task, state)  # type: ignore[arg-type]

    def of_task(self, task: Task, state: TrainState) -> tuple[Program, TrainState]:
        """A program of the same run with other static sizes, and the state placed in it."""
        program = Program(task, self.layout, self.train_examples)
        if "resident" in self.__dict__:
            # Photographs do not change with the capacity: they are not uploaded again.
            program.resident = self.resident
        return program, jax.device_put(state, program.shardings)
