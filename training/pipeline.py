"""Several configs run in turn, each in a folder of its own: `WORKDIR/<stage>`.

A stage begins when the one before is done, from whose checkpoint it may take its start:
`checkpoint.init_from = "previous"`. The same command resumes: stages that are done are left alone,
the one that was interrupted goes on. `WORKDIR/report.html` is about all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from etils import epath

from training import distributed
from training.checkpoint.diff import check_resume
from training.config import TrainConfig
from training.errors import ConfigError
from training.record.report.pipeline import write_pipeline_report
from training.record.run_folder import DONE, saved_config
from training.storage import PathLike, as_path

PREVIOUS = "previous"  # of `checkpoint.init_from`: the stage before this one
# (config of a stage, its work folder) -> "done" or "preempted"
RunStage = Callable[[TrainConfig, epath.Path], str]


def linked(
    stages: Sequence[tuple[str, TrainConfig]], workdir: PathLike
) -> list[tuple[epath.Path, TrainConfig]]:
    """Folder and config of each stage, with `previous` replaced by the folder of the one before.

    Raises:
      ConfigError: the first stage asks for the one before it.
    """
    folder = as_path(workdir)
    found: list[tuple[epath.Path, TrainConfig]] = []
    for name, config in stages:
        if config.checkpoint.init_from == PREVIOUS:
            if not found:
                raise ConfigError(
                    f"config.checkpoint.init_from = {PREVIOUS!r} of the stage {name or 1}: no "
                    "stage comes before it; name a work folder, or set it to None"
                )
            checkpoint = replace(config.checkpoint, init_from=str(found[-1][0]))
            config = replace(config, checkpoint=checkpoint)
        found.append((folder / name if name else folder, config))
    return found


def run_pipeline(
    stages: Sequence[tuple[str, TrainConfig]],
    workdir: PathLike,
    run: RunStage,
    say: Callable[[str], None],
    allow_config_change: Sequence[str] = (),
) -> str:
    """Runs every stage that is not done yet.

    Args:
      run: trains or resumes one stage.
      allow_config_change: keys that may differ from those of a stage that is done.
      say: receives a sentence at the start of each stage.

    Returns:
      "done", or "preempted" where a stage was asked to stop.

    Raises:
      ConfigError: a stage that is done had another config.
    """
    everything = linked(stages, workdir)
    for number, (folder, config) in enumerate(everything, start=1):
        # A single config is always run: `fit` itself finds out that nothing is left to do.
        if len(everything) > 1:
            if (folder / DONE).exists():
                # What comes later was made from it: it must be what is asked for now.
                check_resume(saved_config(folder), config, allow_config_change)
                say(f"stage {number} of {len(everything)}, {folder.name}: done before")
                continue
            say(f"stage {number} of {len(everything)}, {folder.name}")
        outcome = run(config, folder)
        if len(everything) > 1 and distributed.is_main():
            write_pipeline_report(workdir)
        if outcome != "done":
            return "preempted"
    return "done"
