"""The checks before the first update: each ends the command with exit code 2 or 3."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np

from training.errors import ConfigError
from training.guards.book import START, GuardBook
from training.loss import Batch
from training.program import Program
from training.source import Source
from training.state import TrainState
from training.stream import ExampleStream, gather_positions, host_rows_are_unique
from training.task import Task
from training.verdict import Verdict


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


def split_overlap(train: Source, evaluation: Mapping[str, Source]) -> Verdict:
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
    book: GuardBook, program: Program, stream: ExampleStream, state: TrainState, step: int
) -> None:
    """All checks before the first update.

    Raises:
      ConfigError: a batch that does not fit the model, a window outside the run.
      GuardStop: a check of data or of the system's own that failed.
    """
    task, config, variant = program.task, program.config, program.plan.variant(step)
    # The first three held when the program was built, or there would be none: they are noted for
    # the report.
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
    if book.record(windows, START):  # the config is at fault: exit code 2 and not 3
        raise ConfigError(windows.sentence)
    sources = task.sources()
    book.require(split_overlap(sources.train, sources.evaluation), START)
    book.require(unique_ids(stream, step, program), START)
    # The batch of the first update: the stream counts it once, though it is read twice.
    batch = program.layout.put_batch(stream.batch(step), stream.batch_size)
    keys = batch_keys(program.task_of(variant), batch)
    if book.record(keys, START):
        raise ConfigError(keys.sentence)
    for verdict in program.task_of(variant).guards().start(state, batch, program.resident):
        book.require(verdict, START)
