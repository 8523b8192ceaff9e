"""Re-runs one recorded step exactly, on one device, and finds the first offending tensor.

The state before the step is rebuilt: the newest earlier checkpoint, then the updates and refreshes
in between from the same example order. The step itself uses the recorded batch.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from training.capabilities import Resizable
from training.checkpoint.init_from import initialized_from
from training.checkpoint.store import CheckpointReader
from training.config import MeshConfig
from training.errors import CheckpointError, InputError
from training.loss import Batch
from training.mesh import Layout, make_mesh
from training.paths import named_leaves
from training.program import Program
from training.record.recorder import Recording, read_recording
from training.record.run_folder import read_config
from training.registry import make_task
from training.state import TrainState
from training.step import make_step
from training.storage import PathLike
from training.stream import ExampleStream


def replay(workdir: PathLike, step: int, say: Callable[[str], None]) -> dict[str, float]:
    """Prints what happened at a recorded step; returns the metrics of the re-run update.

    Raises:
      InputError: the step was not recorded.
      CheckpointError: no checkpoint before it is left.
    """
    recording = read_recording(workdir, step)
    config = replace(read_config(workdir), mesh=MeshConfig(data=1, fsdp=1, model=1))
    reader = CheckpointReader(workdir, config.checkpoint)
    earlier = [saved for saved in reader.steps() if saved < step]
    task = make_task(config)
    if earlier:
        task = task.with_metadata(reader.describe(earlier[-1]).task)
    layout = Layout(make_mesh(config.mesh, jax.devices()[:1]))
    program = Program(task, layout)
    say(f"step {step}: {recording.record.get('guard')}: {recording.record.get('reason')}")
    with jax.set_mesh(layout.mesh):
        if earlier:
            state, _ = reader.restore(earlier[-1], program.abstract_state)
        elif step <= program.plan.save_every:
            # No checkpoint was due before the step: the start is made again.
            state = initialized_from(program.initial_state(), program.task)
        else:
            raise CheckpointError(
                f"no checkpoint before step {step} is left in {workdir}; keep more of them "
                "(config.checkpoint.keep_latest, keep_every) and replay soon after the step"
            )
        program, state = _advance(program, state, step - 1, say)
        return _examine(program, state, recording, say)


def _advance(
    program: Program, state: TrainState, until: int, say: Callable[[str], None]
) -> tuple[Program, TrainState]:
    """Makes the updates and refreshes between the checkpoint and the recorded step."""
    first, size = int(state.step), program.config.batch_size
    if first < until:
        say(f"re-running steps {first + 1} to {until} from the checkpoint of step {first}")
    with contextlib.closing(_stream(program)) as stream:
        for step in range(first, until):
            batches = program.layout.put_batches([stream.batch(step)], size)
            program, state = _refreshed(program, state, step, batches)
            state, read = program.step(state, batches, program.plan.variant(step))
            (row,) = read()
            if row["replay"] > 0:
                raise InputError(
                    f"step {step + 1} grew the capacity of the model, which replay cannot follow; "
                    "replay a step before it, or one after a later checkpoint"
                )
    return program, state


def _refreshed(
    program: Program, state: TrainState, step: int, batches: Batch
) -> tuple[Program, TrainState]:
    """The state after the refresh that is due before the update of `batches`, if one is."""
    if not program.plan.refreshes(step):
        return program, state
    batch = {name: array[0] for name, array in batches.items()}
    state, ledger = program.refresh(state, batch)
    task = program.task
    reason = task.resize_reason(ledger) if isinstance(task, Resizable) else None
    return (program, state) if reason is None else program.resized(state, reason)


def _stream(program: Program) -> ExampleStream:
    config = program.config
    source, rows = program.task.sources().train, program.layout.rows(config.batch_size)
    return ExampleStream(source, config.seed, config.batch_size, rows, config.loader)


def _recorded_batch(program: Program, recording: Recording) -> dict[str, np.ndarray]:
    """The batch of the recording, read again where the recorder no longer held it."""
    if recording.batch:
        return recording.batch
    with contextlib.closing(_stream(program)) as stream:
        return stream.batch(recording.record["step"] - 1)  # the batch that leads to a step


def _examine(
    program: Program, state: TrainState, recording: Recording, say: Callable[[str], None]
) -> dict[str, float]:
    host = _recorded_batch(program, recording)
    batch = program.layout.put_batch(host, program.config.batch_size)
    batches = program.layout.put_batches([host], program.config.batch_size)
    step = int(state.step)
    variant = program.plan.variant(step)
    program, state = _refreshed(program, state, step, batches)
    copied = jax.tree.map(jnp.copy, state)  # the step takes its buffers
    _, read = program.step(copied, batches, variant)
    (row,) = read()
    offender = bad_input(state, host)
    if not offender and not np.all(np.isfinite(list(row.values()))):
        offender = bad_operation(program, state, batches, variant)
    say(f"first offending tensor: {offender or 'none: every value of the re-run is finite'}")
    for term, groups in program.term_gradients(state, batch, variant).items():
        norms = "  ".join(f"{group} {norm:.4e}" for group, norm in groups.items())
        say(f"gradient norms of {term}: {norms}")
    recorded = recording.record.get("losses", {})
    for name, value in row.items():
        if name.split("/")[0] == "loss":
            before = recorded.get(name)
            say(f"{name}: {value:.9g}" + (f" (recorded {before})" if before is not None else ""))
    return row


def bad_input(state: TrainState, batch: dict[str, np.ndarray]) -> str:
    """The first array of the batch or of the state with a NaN or an infinity, or ""."""
    for name, array in batch.items():
        if np.issubdtype(array.dtype, np.floating) and not np.all(np.isfinite(array)):
            rows = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[:8]
            examples = ", ".join(str(batch["index"][row]) for row in rows)
            where = ", ".join(map(str, rows))
            return f"batch[{name!r}] in row(s) {where}, which are the example(s) {examples}"
    for part in ("params", "ema", "model_state", "opt_state"):
        for name, leaf in named_leaves(getattr(state, part)).items():
            number = jnp.issubdtype(leaf.dtype, jnp.floating)
            if number and not bool(jnp.all(jnp.isfinite(leaf))):
                return f"{part}/{name}"
    return ""


def bad_operation(
    program: Program, state: TrainState, batches: Batch, variant: Hashable = None
) -> str:
    """The first operation of the step that makes a NaN, or else an infinity, and its line.

    NaN comes first: an infinity may be meant, as in the mask of an attention.
    """
    for check in (jax.debug_nans, jax.debug_infs):
        found = _offending_operation(program, state, batches, variant, check)
        if found:
            return found
    return ""


def _offending_operation(
    program: Program,
    state: TrainState,
    batches: Batch,
    variant: Hashable,
    check: Callable[[bool], Any],
) -> str:
    """Where the first one is made, by running the step operation by operation."""
    # Not the program's step, which donates its state: the check needs it for a second run.
    step = make_step(program.task_of(variant), program.optimizer, program.settings)
    try:
        with check(True):
            jax.block_until_ready(jax.jit(step)(state, batches, program.resident))
    except FloatingPointError as error:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if "site-packages" not in frame.filename
        ]
        where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        return f"{str(error).splitlines()[0]}{where}"
    return ""
