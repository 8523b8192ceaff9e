"""Growth of a run's static sizes: asked for by an update that did not fit, or by a refresh.

An update that did not fit has left the state untouched, and so have the updates after it in the
same call. The capacity grows and each of them is made again, on the same batch. Room that the
updates of a whole window did not need is given back, where the task says so: empty room costs time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import jax

from training.capabilities import Resizable
from training.errors import GuardStop
from training.program import Program, ReadMetrics
from training.record.metrics import MetricWriter
from training.record.progress import Progress
from training.state import TrainState
from training.step import replay_reasons
from training.stream import Chunk

MAX_RESIZES = 8  # for one batch: 256 times the size at the start
Rows = list[dict[str, float]]


@dataclass
class Window:
    """What the updates since the last look at the room have needed."""

    updates: int = 0
    peaks: dict[str, float] = field(default_factory=dict)

    def add(self, rows: Rows) -> None:
        """Takes in the metrics of updates."""
        self.updates += len(rows)
        for row in rows:
            for name, value in row.items():
                self.peaks[name] = max(value, self.peaks.get(name, value))


class Growing(Protocol):
    """What growth needs of a run."""

    program: Program
    state: TrainState
    writer: MetricWriter
    progress: Progress
    window: Window

    def dispatch(self, chunk: Chunk, may_stop: bool = False) -> ReadMetrics: ...

    def interlude(self, event: str) -> AbstractContextManager[None]: ...


def settled(run: Growing, chunk: Chunk, rows: Rows) -> Iterator[tuple[Chunk, Rows]]:
    """The updates of a call with their metrics; those that did not fit have been made again.

    Raises:
      GuardStop: one batch does not fit after many doublings.
    """
    held = next((i for i, row in enumerate(rows) if row["replay"] > 0), len(rows))
    yield chunk, rows[:held]
    for i in range(held, chunk.updates):
        part = Chunk(
            chunk.first_step + i,
            chunk.host[i : i + 1],
            jax.tree.map(lambda x, i=i: x[i : i + 1], chunk.device),
        )
        # Only the first of them is known to need room; the others were never tried.
        yield part, [_made_again(run, part, rows[held] if i == held else None)]


def _made_again(run: Growing, part: Chunk, row: dict[str, float] | None) -> dict[str, float]:
    for _ in range(MAX_RESIZES):
        if row is not None:
            reasons = [r for r in replay_reasons(run.program.task) if row[f"suppressed/{r}"] > 0]
            _grow(run, ", ".join(reasons))
        (row,) = run.dispatch(part)()
        if row["replay"] == 0:
            return row
    raise GuardStop("overflow", f"the capacity had to grow {MAX_RESIZES} times in a row")


def grow(run: Growing, ledger: Mapping[str, float]) -> None:
    """Grows the capacity where the ledger row of a refresh says that it is needed."""
    task = run.program.task
    reason = task.resize_reason(ledger) if isinstance(task, Resizable) else None
    if reason is not None:
        _grow(run, reason)


def spare(run: Growing, rows: Rows) -> None:
    """Gives back room that no update of a whole window needed."""
    task = run.program.task
    if not isinstance(task, Resizable) or not task.room_window:
        return
    run.window.add(rows)
    if run.window.updates < task.room_window:
        return
    found, run.window = task.spared(run.window.peaks), Window()
    if found is None:
        return
    smaller, sentence = found
    with run.interlude("compile"):
        run.program, run.state = run.program.of_task(smaller, run.state)  # type: ignore[arg-type]
    _told(run, sentence)


def _grow(run: Growing, reason: str) -> None:
    with run.interlude("compile"):
        run.program, run.state = run.program.resized(run.state, reason)
    # What was needed before says nothing of what will be.
    run.window = Window()
    _told(run, f"capacity grown ({reason})")


def _told(run: Growing, sentence: str) -> None:
    step = int(run.state.step)  # the run's own count may be ahead, at the end of the call
    run.progress.say(f"step {step}: {sentence}")
    run.writer.write(step, {"train/resized": 1.0})
