"""Re-runs one recorded step exactly, on one device, and finds the first offending tensor.

The state before the step is rebuilt: the newest earlier checkpoint, then the updates in between
from the same example order. The step itself uses the recorded batch.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from training.checkpoints import CheckpointReader
from training.config import MeshConfig
from training.errors import CheckpointError
from training.mesh import Layout, make_mesh
from training.paths import named_leaves
from training.plan import make_plan
from training.program import Program
from training.recorder import Recording, read_recording
from training.registry import make_task
from training.run_folder import read_config
from training.state import TrainState
from training.step import make_step
from training.stream import ExampleStream
from training.task import Batch


def replay(workdir: Path, step: int, say: Callable[[str], None]) -> dict[str, float]:
    """Prints what happened at a recorded step; returns the metrics of the re-run update.

    Raises:
      InputError: the step was not recorded.
      CheckpointError: no checkpoint before it is left.
    """
    recording = read_recording(workdir, step)
    config = replace(read_config(workdir), mesh=MeshConfig(data=1, fsdp=1, model=1), accumulation=1)
    reader = CheckpointReader(workdir, config.checkpoint)
    earlier = [saved for saved in reader.steps() if saved < step]
    task = make_task(config)
    if earlier:
        task = task.with_metadata(reader.describe(earlier[-1]).task)
    layout = Layout(make_mesh(config.mesh, jax.devices()[:1]))
    total = make_plan(config, len(task.sources().train), task.refresh_cadence).total
    program = Program(task, config, layout, total)
    say(f"step {step}: {recording.record.get('guard')}: {recording.record.get('reason')}")
    with jax.set_mesh(layout.mesh):
        if earlier:
            state, _ = reader.restore(earlier[-1], program.abstract_state)
        elif step <= config.checkpoint.every.resolve(
            "checkpoint.every", config.batch_size, len(task.sources().train)
        ):
            state = program.initial_state()
        else:
            raise CheckpointError(f"no checkpoint before step {step} is left in {workdir}")
        state = _advance(program, state, step - 1, say)
        return _examine(program, state, recording, say)


def _advance(
    program: Program, state: TrainState, until: int, say: Callable[[str], None]
) -> TrainState:
    """Makes the updates between the checkpoint and the recorded step."""
    first, size = int(state.step), program.config.batch_size
    if first == until:
        return state
    say(f"re-running steps {first + 1} to {until} from the checkpoint of step {first}")
    source = program.task.sources().train
    rows = program.layout.rows(size)
    stream = ExampleStream(source, program.config.seed, size, rows, program.config.loader)
    for step in range(first, until):
        state, _ = program.step(state, program.layout.put_batches([stream.batch(step)], size))
    stream.close()
    return state


def _examine(
    program: Program, state: TrainState, recording: Recording, say: Callable[[str], None]
) -> dict[str, float]:
    say(f"first offending tensor: {first_offender(program, state, recording.batch)}")
    batch = program.layout.put_batch(recording.batch, program.config.batch_size)
    for term, groups in program.term_gradients(state, batch).items():
        norms = "  ".join(f"{group} {norm:.4e}" for group, norm in groups.items())
        say(f"gradient norms of {term}: {norms}")
    stacked = program.layout.put_batches([recording.batch], program.config.batch_size)
    _, read = program.step(state, stacked)
    (row,) = read()
    recorded = recording.record.get("losses", {})
    for name, value in row.items():
        if name.split("/")[0] == "loss":
            before = recorded.get(name)
            say(f"{name}: {value:.9g}" + (f" (recorded {before})" if before is not None else ""))
    return row


def first_offender(program: Program, state: TrainState, batch: dict[str, np.ndarray]) -> str:
    """The first array with a NaN or an infinity: in the batch, the state, or the computation."""
    for name, array in batch.items():
        if np.issubdtype(array.dtype, np.floating) and not np.all(np.isfinite(array)):
            rows = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
            return f"batch[{name!r}] in row(s) {', '.join(map(str, rows[:8]))}"
    for name, leaf in named_leaves(state.params).items():
        if not bool(jnp.all(jnp.isfinite(leaf))):
            return f"params/{name}"
    device_batch = program.layout.put_batches([batch], program.config.batch_size)
    return _offending_operation(program, state, device_batch)


def _offending_operation(program: Program, state: TrainState, batches: Batch) -> str:
    """Where the first NaN is made, by running the step operation by operation."""
    step = make_step(program.task, program.optimizer, program.settings)
    try:
        with jax.debug_nans(True), jax.debug_infs(True):
            jax.block_until_ready(jax.jit(step)(state, batches, program.resident))
    except FloatingPointError as error:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if "site-packages" not in frame.filename
        ]
        where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        return f"{str(error).splitlines()[0]}{where}"
    return "none: every value of the re-run is finite"
