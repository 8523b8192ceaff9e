"""Evaluation of a state on every evaluation source, and its files in the work folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from etils import epath

from training import storage
from training.program import Program
from training.record.run_folder import write_table
from training.source import Source
from training.state import TrainState
from training.storage import PathLike, read_json_object, replace_text
from training.verdict import Evaluation, Table


def evaluate_state(
    program: Program, state: TrainState, sources: Mapping[str, Source] | None = None
) -> Evaluation:
    """Metrics, pictures and tables; names are prefixed if there are several sources.

    Args:
      sources: what to evaluate on, by name; None takes the task's evaluation sources.
    """
    sources = program.task.sources().evaluation if sources is None else sources
    metrics: dict[str, float] = {}
    images: dict[str, np.ndarray] = {}
    tables: dict[str, Table] = {}
    for name, source in sources.items():
        result = program.task.evaluate(state, source, program.layout)
        prefix = f"{name}/" if len(sources) > 1 else ""
        metrics |= {prefix + key: float(value) for key, value in result.metrics.items()}
        images |= {prefix + key: image for key, image in result.images.items()}
        for key, table in result.tables.items():
            shown = tuple(picture and prefix + picture for picture in table.pictures)
            tables[prefix + key] = replace(table, pictures=shown)
    return Evaluation(metrics, images, tables)


def write_evaluation(workdir: PathLike, step: int, result: Evaluation) -> epath.Path:
    """Writes `eval/<step>.json` and the tables; on one process (each saves its own pictures)."""
    for name, table in result.tables.items():
        write_table(workdir, name.replace("/", "_"), table)  # the prefix of a source has a slash
    path = storage.as_path(workdir) / "eval" / f"{step}.json"
    replace_text(path, json.dumps({"step": step, **result.metrics}, indent=1))
    return path


def read_evaluations(workdir: PathLike, before: int) -> list[dict[str, float]]:
    """Metrics of the evaluations up to and including a step, oldest first.

    Raises:
      InputError: a file of them is damaged.
    """
    paths = storage.list_folder(storage.as_path(workdir) / "eval")
    steps = {int(path.stem): path for path in paths if path.stem.isdigit()}
    # Later ones belong to updates that a resumed run makes again.
    return [read_json_object(steps[step]) for step in sorted(steps) if step <= before]
