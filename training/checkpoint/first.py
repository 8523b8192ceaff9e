"""A work folder that starts from parameters made elsewhere: its checkpoint of step 0."""

from __future__ import annotations

from collections.abc import Sequence

from training import distributed
from training.checkpoint.resume import data_position, saved_facts
from training.checkpoint.store import CheckpointReader, CheckpointStore
from training.config import TrainConfig
from training.errors import CheckpointError
from training.program import Program
from training.record.run_folder import held_run_folder, resolved_config, write_config
from training.state import TrainState
from training.storage import PathLike
from training.task import with_config


def write_first_checkpoint(
    workdir: PathLike,
    program: Program,
    state: TrainState,
    config: TrainConfig,
    overrides: Sequence[str],
    with_data: bool = True,
) -> None:
    """Writes `config.json` and the checkpoint of step 0, from which `train` and `evaluate` go on.

    Args:
      workdir: made if missing.
      program, state: as for the first step of a run, on any mesh.
      config: of the run to come; may differ from the program's in its mesh.
      overrides: of the command line, for `config.json`.
      with_data: whether `train` is to go on from it, so that the data must be there; else it is
        used, and other runs start from it.

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
        task = with_config(program.task, config)
        source = task.sources().train if with_data else None
        # Before the checkpoint, which could not be evaluated without it.
        if main:
            write_config(workdir, config, list(overrides), program.plan.total)
        store = CheckpointStore(workdir, config.checkpoint)
        store.save(
            0,
            state,
            {} if source is None else data_position(source, config, 0),
            config=resolved_config(config),
            task=task.metadata() if source is None else saved_facts(task, source),
        )
        store.close()
