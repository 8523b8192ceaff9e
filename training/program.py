"""Everything of a run that is compiled: state placement, the step, and what else needs them.

A `Program` is made once from a task, a config and a mesh, and again when the task is resized.
Restore, evaluation, overfit and replay all use the same one, so that they cannot differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from training.config import TrainConfig
from training.errors import ConfigError
from training.mesh import Layout, check_batch, state_shardings
from training.optimizer import Optimizer, build_optimizer
from training.paths import named_leaves
from training.schedules import ema_decay
from training.state import TrainState, new_state
from training.step import StepSettings, make_step, make_term_gradients
from training.task import Batch, Table, Task

PyTree = Any


class Program:
    """The compiled functions of one run. Call them inside `jax.set_mesh(layout.mesh)`.

    Attributes:
      abstract_state: shapes, dtypes and shardings of the train state.
      total_updates: the horizon of schedules and of the run.
    """

    def __init__(self, task: Task, config: TrainConfig, layout: Layout, total_updates: int):
        check_batch(config.batch_size, config.accumulation, layout.mesh)
        self.task, self.config, self.layout = task, config, layout
        self.total_updates = total_updates
        self.optimizer = self._build_optimizer()
        self.settings = StepSettings(
            config.accumulation, config.optimizer.clip_norm, ema_decay(config.ema, total_updates)
        )
        shapes = jax.eval_shape(self._create)
        self.shardings = state_shardings(shapes, layout.mesh, config.mesh, task.sharding_rules)
        self.abstract_state: TrainState = jax.tree.map(
            lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s),
            shapes,
            self.shardings,
        )
        self._steps: dict[int, Callable] = {}
        self._metric_names: dict[int, list[str]] = {}

    def _build_optimizer(self) -> Optimizer:
        params, _ = jax.eval_shape(self.task.init, jax.random.key(0))
        labels = self.task.optimizer_groups(params)
        if jax.tree.structure(labels) != jax.tree.structure(params):
            raise ConfigError("the task's optimizer groups do not cover exactly its parameters")
        return build_optimizer(
            self.task.optimizer_settings(self.config),
            labels,
            self.total_updates,
            self.task.learning_rate_scales(),
            self.task.adam_bias_correction,
        )

    def _create(self) -> TrainState:
        key = jax.random.key(self.config.seed)
        params, model_state = self.task.init(jax.random.fold_in(key, 0))
        ema = None
        if self.settings.ema_decay is not None:
            # A copy: donated buffers must not be shared between parameters and average.
            ema = jax.tree.map(jnp.copy, self.task.ema_select(params))
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

    def step(
        self, state: TrainState, batches: Batch
    ) -> tuple[TrainState, Callable[[], list[dict[str, float]]]]:
        """Runs the updates of `batches` (`[updates, batch, ...]`); the state is donated.

        Returns:
          The new state and a function that waits for the metrics of each update. The metrics
          travel as one array, because one transfer per number would cost more than the step.
        """
        updates = next(iter(batches.values())).shape[0]
        if updates not in self._steps:
            self._steps[updates] = self._compile(updates)
        state, packed = self._steps[updates](state, batches, self.resident)
        names = self._metric_names[updates]

        def read() -> list[dict[str, float]]:
            rows = np.asarray(packed.addressable_data(0), np.float64)
            return [dict(zip(names, row.tolist())) for row in rows]

        return state, read

    def is_compiled(self, updates: int) -> bool:
        """Whether a call of so many updates was made before."""
        return updates in self._steps

    def _compile(self, updates: int) -> Callable:
        step = make_step(self.task, self.optimizer, self.settings, updates)

        def packed(state: TrainState, batches: Batch, resident: PyTree):
            state, metrics = step(state, batches, resident)
            self._metric_names[updates] = list(metrics)
            return state, jnp.stack([m.astype(jnp.float32) for m in metrics.values()], axis=-1)

        return jax.jit(
            packed, donate_argnums=0, out_shardings=(self.shardings, self.layout.replicated)
        )

    def lower(self, batches: PyTree):
        """The lowered step for abstract or real batches (ahead-of-time compilation, tests)."""
        updates = jax.tree.leaves(batches)[0].shape[0]
        return self._compile(updates).lower(self.abstract_state, batches, self.resident)

    @cached_property
    def _term_gradients(self) -> Callable:
        function = make_term_gradients(self.task, self.optimizer.labels)
        return jax.jit(function, out_shardings=self.layout.replicated)

    def term_gradients(self, state: TrainState, batch: Batch) -> dict[str, dict[str, float]]:
        """Gradient norm of each loss term in each parameter group, for `[batch, ...]`."""
        return jax.tree.map(float, self._term_gradients(state, batch, self.resident))

    @cached_property
    def _refresh(self) -> Callable:
        return jax.jit(
            self.task.refresh,
            donate_argnums=0,
            out_shardings=(self.shardings, self.layout.replicated),
        )

    def refresh(self, state: TrainState) -> tuple[TrainState, dict[str, float]]:
        """The task's periodic rewrite of the state, and its ledger row."""
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 0x7FFFFFFE)
        state, ledger = self._refresh(state, key)
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
        """A program of larger capacity and the state placed in it."""
        task, state = self.task.resize(state, reason)
        program = Program(task, self.config, self.layout, self.total_updates)
        return program, jax.device_put(state, program.shardings)
