"""Where a run starts from: its newest checkpoint, an earlier stage, or a fresh state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax

from training.checkpoint.diff import check_resume
from training.checkpoint.init_from import initialize_from
from training.checkpoint.store import CheckpointStore
from training.config import TrainConfig
from training.errors import ConfigError
from training.mesh import Layout
from training.program import Program
from training.state import TrainState
from training.task import Source, Task


def open_state(
    task: Task,
    config: TrainConfig,
    config_json: Mapping[str, Any],
    layout: Layout,
    total_updates: int,
    store: CheckpointStore,
    allow: Sequence[str],
) -> tuple[Program, TrainState]:
    """The program and the state of a run's first step, placed on the mesh.

    Raises:
      CheckpointError: the newest checkpoint does not fit the model.
      ConfigError: the config or the data changed in what must not change (see `allow`).
    """
    latest = store.latest()
    if latest is None:
        program = Program(task, config, layout, total_updates)
        return program, fresh_state(program)
    saved = store.describe(latest)
    check_resume(saved.config, config, allow)
    program = Program(task.with_metadata(saved.task), config, layout, total_updates)
    state, data = store.restore(latest, program.abstract_state, config_json)
    if "data" not in allow:
        check_data(data, data_position(task.sources().train, config, latest))
    return program, state


def fresh_state(program: Program) -> TrainState:
    """The state of step 0, with what `config.checkpoint.init_from` hands over."""
    state, settings = program.initial_state(), program.config.checkpoint
    if settings.init_from is None:
        return state
    fields = {"params": state.params}
    if state.ema is not None:
        fields["ema"] = state.ema
    taken = initialize_from(
        settings.init_from, fields, settings.init_include, settings.init_exclude
    )
    return jax.device_put(replace(state, **taken), program.shardings)


def data_position(source: Source, config: TrainConfig, step: int) -> dict[str, Any]:
    """JSON saved with a checkpoint: how far the example stream is, and of which examples."""
    return {
        "examples": step * config.batch_size,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "length": len(source),
        "fingerprint": source.fingerprint,
    }


def check_data(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Raises ConfigError where the order of examples could not go on as it was."""
    changed = [
        f"{name} {saved[name]!r} -> {current[name]!r}"
        for name in current
        if name in saved and saved[name] != current[name]
    ]
    if changed:
        raise ConfigError(
            f"the training data changed since the checkpoint ({', '.join(changed)}); restore it, "
            "or pass --allow-config-change=data to go on in a new order"
        )
