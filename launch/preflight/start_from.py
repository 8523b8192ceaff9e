"""Whether the run finds what it starts from: its own newest checkpoint, or an earlier run's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launch.preflight.rows import FAIL, PASS, SKIP, Row, one_line
from training.capabilities import Inheriting
from training.checkpoint.diff import (
    SavedDescription,
    check_resume,
    compare,
    compare_subset,
    leaf_specs,
)
from training.checkpoint.init_from import HANDED_ON
from training.checkpoint.store import CheckpointReader
from training.config import TrainConfig
from training.errors import PodvisionError
from training.paths import named_leaves, nested
from training.program import Program
from training.storage import PathLike
from training.typed import plain


def resume_row(program: Program, config: TrainConfig, workdir: PathLike) -> Row | None:
    """The newest checkpoint of the work folder against the run; None where there is none.

    It is what a resume asks: the same config, and every array in its shape and dtype.

    Args:
      config: of the run; the program's may be for another mesh.
    """
    try:
        reader = CheckpointReader(workdir)
        if reader.latest() is None:
            return None
        saved = reader.describe("latest")
        check_resume(saved.config, config)
        task = program.task.with_metadata(saved.task)
        resumed = Program(task, program.layout, saved.task.get("train_examples"))
        diff = compare(saved, resumed.abstract_state, plain(config))
    except (PodvisionError, OSError) as error:
        return Row("checkpoint", FAIL, one_line(error))
    facts = {"path": saved.path, "step": saved.step}
    if diff.empty:
        left = resumed.total_updates - saved.step
        sentence = (
            f"resumes from step {saved.step:,} of {saved.path}; {max(left, 0):,} updates left"
        )
        return Row("checkpoint", PASS, sentence, facts)
    return _unfit(diff, "resume with the config that it was trained with, or choose another "
                  "--workdir", facts)  # fmt: skip


def init_row(program: Program, previous: SavedDescription | None = None) -> Row:
    """The run that this one takes its start from.

    Args:
      previous: what the stage before will hand over, where it has not run yet.
    """
    config = program.config.checkpoint
    if config.init_from is None:
        return Row("checkpoint", SKIP, "starts afresh: nothing to take over")
    try:
        saved = previous
        if saved is None:
            saved = CheckpointReader(config.init_from).describe("latest")
        saved = saved.renamed(config.init_rename)
        state = program.abstract_state
        wanted = {name: getattr(state, name) for name in HANDED_ON}
        wanted = {name: part for name, part in wanted.items() if named_leaves(part)}
        if isinstance(program.task, Inheriting):
            forms = program.task.saved_form(named_leaves(wanted), saved.leaves.keys(), saved.task)
            wanted = nested(forms)
        diff = compare_subset(saved, wanted, config.init_include, config.init_exclude)
    except (PodvisionError, OSError) as error:
        return Row("checkpoint", FAIL, one_line(error))
    facts = {"path": saved.path, "step": saved.step}
    if diff.empty:
        return Row("checkpoint", PASS, f"starts from {saved.path}, which fits", facts)
    return _unfit(diff, "name another --init-from, or narrow checkpoint.init_include", facts)


def description_of(program: Program, name: str, facts: Mapping[str, Any]) -> SavedDescription:
    """What a stage that has not run yet will leave behind: its last checkpoint, in shapes.

    Args:
      facts: what it will save of its task, as far as that is known.
    """
    return SavedDescription(
        path=f"stage {name}, still to run",
        step=program.total_updates,
        leaves=leaf_specs(program.abstract_state),
        config=plain(program.config),
        task=facts,
    )


def _unfit(diff, advice: str, facts: dict) -> Row:
    lines = tuple(line.strip() for line in diff.text().splitlines()[3:] if line.strip())
    count = len(diff.findings)
    sentence = f"{diff.path} does not fit the model in {count} arrays; {advice}"
    return Row("checkpoint", FAIL, sentence, facts | {"findings": list(lines)}, lines)
