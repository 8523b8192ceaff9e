"""Where a run starts from: its newest checkpoint that can be read, an earlier stage, or afresh."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from training.checkpoint.diff import check_resume
from training.checkpoint.init_from import initialized_from
from training.checkpoint.store import CheckpointReader
from training.config import TrainConfig
from training.errors import CheckpointError, ConfigError, UnreadableCheckpoint
from training.mesh import Layout
from training.program import Program
from training.source import Source
from training.state import TrainState
from training.task import Task


def open_state(
    task: Task,
    layout: Layout,
    reader: CheckpointReader,
    config_json: Mapping[str, Any],
    allow: Sequence[str],
    say: Callable[[str], None],
) -> tuple[Program, TrainState, int | None]:
    """The program and the state of a run's first step, placed on the mesh; changes no file.

    A checkpoint that cannot be read is passed over with a sentence: what was learned after the one
    before it is made again.

    Args:
      reader: of the run's work folder.
      config_json: resolved config of this command.
      allow: dotted keys that may differ from the checkpoint's (`data` allows other data).
      say: receives sentences for the user.

    Returns:
      Program, state, and the step of the checkpoint that was restored; None at a fresh start.

    Raises:
      CheckpointError: a checkpoint does not fit the model, or none can be read.
      ConfigError: the config or the data changed in what must not change.
    """
    steps = reader.steps()
    for position, step in enumerate(reversed(steps)):
        try:
            return *_restored(task, layout, reader, step, config_json, allow), step
        except UnreadableCheckpoint as error:
            # Damage alone comes here: that a checkpoint does not fit the model must be told.
            if position + 1 == len(steps):
                raise CheckpointError(
                    f"no checkpoint of {reader.folder.path} can be read; the newest: {error}"
                ) from error
            say(f"{error}; going back to the checkpoint of step {steps[-2 - position]}")
    program = Program(task, layout)
    return program, initialized_from(program.initial_state(), task, say), None


def _restored(
    task: Task,
    layout: Layout,
    reader: CheckpointReader,
    step: int,
    config_json: Mapping[str, Any],
    allow: Sequence[str],
) -> tuple[Program, TrainState]:
    saved = reader.describe(step)
    check_resume(saved.config, task.config, allow)
    # With the facts of the checkpoint: the shapes of the state may depend on them.
    program = Program(task.with_metadata(saved.task), layout)
    state, data = reader.restore(step, program.abstract_state, config_json)
    if "data" not in allow:
        check_data(data, data_position(task.sources().train, task.config, step))
    return program, state


def data_position(source: Source, config: TrainConfig, step: int) -> dict[str, Any]:
    """JSON saved with a checkpoint: how far the example stream is, and of which examples.

    A suppressed update has consumed its batch too, so the position counts steps, not applied
    updates.
    """
    return {
        "examples": step * config.batch_size,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "length": len(source),
        "fingerprint": source.fingerprint,
    }


def saved_facts(task: Task, source: Source) -> dict[str, Any]:
    """JSON saved with a checkpoint: what using the model needs when the data is not at hand."""
    return {"train_examples": len(source), **task.metadata()}


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
