"""A finished or running work folder, restored on the devices that are here."""

from __future__ import annotations

import math
from dataclasses import replace

import jax

from training.checkpoint.store import CheckpointReader
from training.config import MeshConfig
from training.mesh import Layout, make_mesh
from training.plan import make_plan
from training.program import Program
from training.record.run_folder import read_config
from training.registry import make_task
from training.state import TrainState
from training.storage import PathLike
from training.task import Task


def restored(
    workdir: PathLike, which: str, task: Task | None = None
) -> tuple[Program, TrainState, int]:
    """Program, state and step of a checkpoint; the config is the work folder's.

    Args:
      task: the task of an earlier call for this folder, to save loading its data again.

    The mesh is the config's where it fits the devices of this machine (axes of -1 do), else all
    of them on the data axis; as many devices are used as the batch divides over.

    Raises:
      InputError: no work folder.
      CheckpointError: no such checkpoint, or it does not fit.
    """
    config = read_config(workdir)
    reader = CheckpointReader(workdir, config.checkpoint)
    step = reader.resolve(which)
    task = (task or make_task(config)).with_metadata(reader.describe(step).task)
    devices = jax.devices()
    if jax.process_count() == 1:
        count = next(n for n in range(len(devices), 0, -1) if config.batch_size % n == 0)
        devices = devices[:count]
    config = replace(config, mesh=_fitting_mesh(config.mesh, len(devices)), accumulation=1)
    layout = Layout(make_mesh(config.mesh, devices))
    total = make_plan(config, len(task.sources().train), task.refresh_cadence).total
    program = Program(task, config, layout, total)
    with jax.set_mesh(layout.mesh):
        state, _ = reader.restore(step, program.abstract_state)
    return program, state, step


def _fitting_mesh(config: MeshConfig, devices: int) -> MeshConfig:
    sizes = [config.data, config.fsdp, config.model]
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and devices % known == 0:
        return config
    return replace(config, data=-1, fsdp=1, model=1, rules=())
