"""Hand-off between stages: arrays of a finished run become the start of the next one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from training.capabilities import Inheriting
from training.checkpoint.diff import select
from training.checkpoint.store import CheckpointReader
from training.config import CheckpointConfig
from training.errors import CheckpointError
from training.paths import named_leaves, nested, rebuild
from training.state import TrainState
from training.task import Task

# The parts of a state that a stage hands on; moments and counters begin anew.
HANDED_ON = ("params", "model_state", "ema")


def _unsaid(sentence: str) -> None:
    del sentence


def initialized_from(
    state: TrainState, task: Task, say: Callable[[str], None] = _unsaid
) -> TrainState:
    """The state with what `checkpoint.init_from` hands over; as it is where that is None.

    Every array of parameters, model state and average that `init_include` and `init_exclude` leave
    must be in the earlier run's newest checkpoint, after `init_rename`, with its shape and dtype,
    or in another form that the task knows (`capabilities.Inheriting`).

    Args:
      say: receives sentences about what was taken over in another form.

    Raises:
      CheckpointError: an array does not fit or is not finite, a regex matches nothing, or there
        is no checkpoint.
    """
    config: CheckpointConfig = task.config.checkpoint
    if config.init_from is None:
        return state
    fields = {name: getattr(state, name) for name in HANDED_ON}
    fields = {name: part for name, part in fields.items() if jax.tree.leaves(part)}
    inheriting = task if isinstance(task, Inheriting) else None
    return replace(state, **initialize(fields, config, inheriting, say))


def initialize(
    initial: Mapping[str, Any],
    config: CheckpointConfig,
    task: Inheriting | None = None,
    say: Callable[[str], None] = _unsaid,
) -> dict[str, Any]:
    """`initial` with the selected arrays replaced by those of another run's checkpoint.

    Args:
      initial: subtrees of a state under their field names, for instance `{"params": ...,
        "ema": ...}`, as initialized arrays; their shardings are kept.
      config: names the work folder and what is taken.
      task: knows other forms of its state.
    """
    reader = CheckpointReader(str(config.init_from))
    step = reader.resolve("latest")
    described = reader.describe(step)
    saved, facts = described.renamed(config.init_rename), described.task
    leaves, wanted = named_leaves(initial), initial
    if task is not None:
        wanted = nested(task.saved_form(leaves, saved.leaves.keys(), facts))
    selection = (config.init_include, config.init_exclude)
    restored = reader.restore_subtree(step, wanted, *selection, rename=config.init_rename)
    found = named_leaves(restored)
    chosen = select(saved, wanted, *selection)
    _require_finite({path: found[path] for path in chosen}, str(reader.folder.step_path(step)))
    if task is None:
        return restored
    taken, sentences = task.inherited(found, leaves, facts)
    for sentence in sentences:
        say(sentence)
    return rebuild(initial, taken)


def _require_finite(arrays: Mapping[str, jax.Array], where: str) -> None:
    """Raises CheckpointError naming the floating-point arrays with a NaN or an infinity."""
    floating = {
        path: array for path, array in arrays.items() if jnp.issubdtype(array.dtype, jnp.floating)
    }
    # One program and one transfer, however many arrays there are.
    finite = jax.device_get(jax.jit(_all_finite)(floating))
    broken = [path for path, ok in finite.items() if not ok]
    if broken:
        raise CheckpointError(
            f"checkpoint {where} holds values that are not finite in {', '.join(broken[:5])}; "
            f"start from an earlier checkpoint"
        )


def _all_finite(arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    return {path: jnp.isfinite(array).all() for path, array in arrays.items()}
