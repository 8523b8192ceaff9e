"""A work folder that starts from parameters made elsewhere: its checkpoint of step 0."""

from __future__ import annotations

from collections.abc import Sequence

from training import distributed
from training.checkpoint.resume import data_position
from training.checkpoint.store import CheckpointReader, CheckpointStore
from training.config import TrainConfig
from training.errors import CheckpointError
from training.plan import make_plan
from training.record.run_folder import held_run_folder, resolved_config, write_config
from training.state import TrainState
from training.storage import PathLike
from training.task import Task


def write_first_checkpoint(
    workdir: PathLike, task: Task, config: TrainConfig, state: TrainState, overrides: Sequence[str]
) -> None:
    """Writes `config.json` and the checkpoint of step 0, from which `train` and `evaluate` go on.

    Args:
      workdir: made if missing.
      task, config, state: as for the first step of a run.
      overrides: of the command line, for `config.json`.

    Raises:
      CheckpointError: the folder holds a run already, or cannot be written.
      InputError: the folder cannot be made.
    """
    main = distributed.is_main()
    with held_run_folder(workdir, main):
        found = CheckpointReader(workdir).steps()
        if found:
            raise CheckpointError(
                f"{workdir} holds a run with a checkpoint of step {found[-1]}; choose a new "
                "--workdir"
            )
        source = task.sources().train
        plan = make_plan(config, len(source), task.refresh_cadence)
        if main:
            write_config(workdir, config, list(overrides), plan.total)
        store = CheckpointStore(workdir, config.checkpoint, plan.save_every)
        position = data_position(source, config, 0)
        resolved = resolved_config(config)
        store.save(0, state, position, config=resolved, task=task.metadata())
        store.close()
