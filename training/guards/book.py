"""The guard book (which guard ran, passed, failed) and the checks made before the first step.

A guard has a name, a sentence, a paragraph in docs/failures.md and an off switch
(`config.guards.off`). Guards at the start end the command with exit code 2 or 3 before any update;
`training.guards.watch` has those that look at every update.
"""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np

from training import storage
from training.config import GuardConfig
from training.errors import ConfigError, GuardStop
from training.program import Program
from training.storage import PathLike
from training.stream import ExampleStream, gather_positions, host_rows_are_unique
from training.task import Batch, Source, Task, Verdict
from training.typed import suggestion

# Every guard of every system: what `config.guards.off` may name and docs/failures.md explains.
GUARDS = (
    "grad-norm",
    "schedule",
    "learning-rate-rose",
    "nonfinite",
    "consecutive-skips",
    "zero-gradient",
    "constant-term",
    "loss-spike",
    "share-cap",
    "hang",
    "batch-arithmetic",
    "phase-window",
    "batch-keys",
    "optimizer-groups",
    "split-overlap",
    "checkpoint-diff",
    "unread-config",
    "unique-ids",
    "data-replaced",
    "ema-moved",
    "collapse",
    "spacing",
    "decode",
    "overfit",
    "pixel-dependence",
    "finite-differences",
    "held-out-split",
    "gradient-health",
    "identical-evaluations",
    "plausible-psnr",
    "idle-refinement",
    "overflow",
    "evaluation-loss",
)
START, STEP, LOG, EVALUATION = "start", "every step", "log steps", "evaluation"


class GuardBook:
    """Collects verdicts for `guards.json` and stops the run at the first that failed."""

    def __init__(self, config: GuardConfig):
        for name in config.off:
            if name not in GUARDS:
                raise ConfigError(
                    f"config.guards.off names {name!r}, which is no guard{suggestion(name, GUARDS)}"
                )
        self.off = frozenset(config.off)
        self.rows: dict[str, dict[str, Any]] = {}

    def record(self, verdict: Verdict, when: str) -> bool:
        """Notes a verdict; returns whether the run has to stop because of it."""
        switched_off = verdict.name in self.off
        row = self.rows.setdefault(
            verdict.name, {"name": verdict.name, "when": when, "checked": 0, "passed": True}
        )
        row["checked"] += 1
        stops = not verdict.passed and not verdict.warning and not switched_off
        # The first finding stays, unless a warning was followed by a stop.
        if row["passed"] or (stops and row.pop("warning", False)):
            note = "switched off by config.guards.off; " if switched_off else ""
            row |= {"passed": verdict.passed, "sentence": note + verdict.sentence}
            if not verdict.passed and not stops:
                row["warning"] = True
        return stops

    def require(self, verdict: Verdict, when: str) -> None:
        """Raises GuardStop where the verdict stops the run."""
        if self.record(verdict, when):
            raise GuardStop(verdict.name, verdict.sentence)

    def declare(self, name: str, when: str, sentence: str) -> None:
        """Lists a guard that is active and has had nothing to look at yet."""
        self.rows.setdefault(
            name,
            {"name": name, "when": when, "checked": 0, "passed": True, "sentence": sentence},
        )

    def count(self, name: str, looks: int) -> None:
        """Notes that a declared guard has looked so many times and found nothing."""
        self.rows[name]["checked"] += looks

    def write(self, workdir: PathLike) -> None:
        """Writes `guards.json`."""
        path = storage.as_path(workdir) / "guards.json"
        storage.replace_text(path, json.dumps(list(self.rows.values()), indent=1))


def phase_windows(task: Task, total_updates: int) -> Verdict:
    """Every declared window of a loss term lies inside the horizon and is not empty."""
    for name, term in task.loss_terms.items():
        if term.window is None:
            continue
        start, stop = term.window
        if not 0 <= start < stop:
            fault = "starts before update 0" if start < 0 else "is empty"
            sentence = f"the window {term.window} of {name} {fault}; set 0 <= start < stop"
            return Verdict("phase-window", False, sentence)
        if start >= total_updates:
            return Verdict(
                "phase-window",
                False,
                f"the loss term {name} starts at update {start}, but the run ends at "
                f"{total_updates}, so it would never become active; move its window",
            )
    return Verdict("phase-window", True, "every loss term becomes active inside the run")


def batch_keys(task: Task, batch: Batch) -> Verdict:
    """The batch has every key that the task requires, in shape and dtype."""
    for key, (shape, dtype) in task.describe().batch_keys.items():
        if key not in batch:
            sentence = f"the batch lacks the key {key!r}; it has {', '.join(sorted(batch))}"
            return Verdict("batch-keys", False, sentence)
        found = batch[key]
        if tuple(found.shape[1:]) != tuple(shape) or str(found.dtype) != dtype:
            sentence = (
                f"batch[{key!r}] is {found.dtype}{list(found.shape[1:])} per example, "
                f"but the model needs {dtype}{list(shape)}"
            )
            return Verdict("batch-keys", False, sentence)
    return Verdict("batch-keys", True, "the batch has every key in the shape that the model needs")


def split_overlap(train: Source, evaluation: dict[str, Source]) -> Verdict:
    """No identity (participant, view, image) is in both training and evaluation."""
    trained = {train.identity(i) for i in range(len(train))}
    for name, source in evaluation.items():
        shared = trained & {source.identity(i) for i in range(len(source))}
        if shared:
            sentence = (
                f"{len(shared)} of the identities in the split {name!r} are also trained on, "
                f"for instance {min(shared)!r}; make the splits disjoint"
            )
            return Verdict("split-overlap", False, sentence)
    sentence = f"{len(trained)} training identities, none in an evaluation split"
    return Verdict("split-overlap", True, sentence)


def unique_ids(stream: ExampleStream, step: int, program: Program) -> Verdict:
    """The rows of all processes together are the global batch, each example once."""
    positions = gather_positions(stream, step, program.layout)
    if not host_rows_are_unique(positions, stream.batch_size):
        repeated = stream.batch_size - len(np.unique(positions))
        sentence = (
            f"{repeated} of the {stream.batch_size} examples of the global batch are read by more "
            "than one process; every process must read its own rows"
        )
        return Verdict("unique-ids", False, sentence)
    sentence = f"the {stream.batch_size} examples of a global batch are read once each"
    return Verdict("unique-ids", True, sentence)


def run_start_guards(
    book: GuardBook, program: Program, stream: ExampleStream, state: Any, step: int
) -> None:
    """All checks before the first update.

    Raises:
      ConfigError: a batch that does not fit the model, a window outside the run.
      GuardStop: a check of data or of the system's own that failed.
    """
    task = program.task
    config = program.config
    shards = f"{dict(program.layout.mesh.shape)}, {config.accumulation} micro-batches"
    sentence = f"a global batch of {config.batch_size} divides over {shards}"
    book.record(Verdict("batch-arithmetic", True, sentence), START)
    groups = ", ".join(program.optimizer.schedules)
    sentence = f"learning rates of {groups}: positive at update 0, never rising after warm-up"
    book.record(Verdict("schedule", True, sentence), START)
    leaves = len(jax.tree.leaves(program.optimizer.labels))
    sentence = f"{leaves} parameters, each in one group and under one weight-decay rule"
    book.record(Verdict("optimizer-groups", True, sentence), START)
    windows = phase_windows(task, program.total_updates)
    if book.record(windows, START):
        raise ConfigError(windows.sentence)
    sources = task.sources()
    book.require(split_overlap(sources.train, dict(sources.evaluation)), START)
    book.require(unique_ids(stream, step, program), START)
    batch = program.layout.put_batch(stream.batch(step), stream.batch_size)
    keys = batch_keys(task, batch)
    if book.record(keys, START):
        raise ConfigError(keys.sentence)
    for verdict in task.start_guards(state, batch, program.resident):
        book.require(verdict, START)
