"""A trained model from its work folder, on the devices that are here and without its data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import jax

from training.checkpoint.store import CheckpointReader
from training.config import MeshConfig, TrainConfig
from training.mesh import Layout, make_mesh
from training.program import Program
from training.record.run_folder import read_config
from training.registry import make_task
from training.state import TrainState
from training.storage import PathLike
from training.task import Task, with_config


def restored(
    workdir: PathLike,
    which: str,
    task: Task | None = None,
    overrides: Sequence[str] = (),
) -> tuple[Program, TrainState, int]:
    """Program, state and step of a checkpoint; the config is the work folder's.

    Horizon, shapes and facts of the data come from the checkpoint; no data is opened. The mesh is
    the config's where it fits the devices of this machine (axes of -1 do), else all of them on the
    data axis; as many devices are used as the batch divides over.

    Args:
      which: a step, `latest` or `best`.
      task: the task of an earlier call for this folder, with what it has loaded since.
      overrides: `a.b=text` for the config, such as where the data is now.

    Raises:
      InputError: no work folder.
      CheckpointError: no such checkpoint, or it does not fit.
    """
    config = read_config(workdir, overrides)
    reader = CheckpointReader(workdir, config.checkpoint)
    step = reader.resolve(which)
    facts = reader.describe(step).task
    devices = jax.devices()
    # On several hosts all devices are needed, or one host might have none of the mesh.
    if jax.process_count() == 1:
        count = next(n for n in range(len(devices), 0, -1) if config.batch_size % n == 0)
        devices = devices[:count]
    config = fitted(config, len(devices))
    task = with_config(make_task(config) if task is None else task, config).with_metadata(facts)
    layout = Layout(make_mesh(config.mesh, devices))
    program = Program(task, layout, facts.get("train_examples"))
    with jax.set_mesh(layout.mesh):
        state, _ = reader.restore(step, program.abstract_state)
    return program, state, step


def fitted(config: TrainConfig, devices: int) -> TrainConfig:
    """The config for so many devices: its own mesh where that fits, else a data axis."""
    mesh = config.mesh
    sizes = [mesh.data, mesh.fsdp, mesh.model]
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) != 1 or devices % known:
        mesh = MeshConfig(data=-1, fsdp_min_bytes=mesh.fsdp_min_bytes)
    # No update is made: micro-batches would only ask for a larger batch.
    return replace(config, mesh=mesh, accumulation=1)
