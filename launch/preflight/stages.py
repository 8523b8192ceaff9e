"""All stages of a recipe: each is checked, and against what the one before will hand over."""

from __future__ import annotations

from collections.abc import Iterator

from launch.preflight.checks import Options, Stage
from launch.preflight.rows import Row
from training.checkpoint.store import CheckpointReader
from training.pipeline import PREVIOUS, linked
from training.registry import load_stages
from training.storage import PathLike

# For the folders of stages where no work folder was named; nothing is written there.
NOWHERE = "no-workdir-given"


def checked(options: Options, workdir: PathLike | None) -> Iterator[tuple[str, Row]]:
    """Name of the stage ("" of a plain config) and row, one after the other.

    Raises:
      ConfigError: the recipe cannot be read, or a key or value in it is wrong.
    """
    stages = load_stages(options.config, options.overrides)
    last: Stage | None = None
    for (name, given), (folder, config) in zip(stages, linked(stages, workdir or NOWHERE)):
        previous = None
        if given.checkpoint.init_from == PREVIOUS and last is not None and last.program is not None:
            ran = workdir is not None and CheckpointReader(str(config.checkpoint.init_from)).steps()
            previous = None if ran else last
        stage = Stage(options, name, config, None if workdir is None else folder, previous)
        for row in stage.rows():
            yield name, row
        last = stage
