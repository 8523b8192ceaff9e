"""How fast a run goes and how long it still takes: the `Meter` and the `Progress` display.

Times of steps are wall times between completed calls of the step, less the pauses (evaluation,
saving, compiling), each divided by the updates of the call. The device works while the host
prepares the next batch, so a wait for data counts as part of the step that waited.

Model FLOPs utilization (PaLM, appendix B): analytic FLOPs per example x examples per second over
the peak of all devices; recomputed activations do not count.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TextIO

import numpy as np

from training.record.presentation import no_lines

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

# Dense bf16 peak of one JAX device in FLOP/s, by the start of `device_kind`; the first match
# counts. From the vendors' data sheets; a v4 device is one chip with two cores, a TPU7x device one
# of a chip's two.
DEVICE_PEAKS = (
    ("TPU v4", 275e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5e", 197e12),
    ("TPU v5", 459e12),
    ("TPU v6", 918e12),
    ("TPU7x", 1153.5e12),
    ("NVIDIA A100", 312e12),
    ("NVIDIA H100 PCIe", 756e12),
    ("NVIDIA H100", 989e12),
    ("NVIDIA H200", 989e12),
)
REFRESH_SECONDS = 0.2


def device_peak(device_kind: str) -> float | None:
    """Peak FLOP/s of one device; None for a CPU or a device that is not listed."""
    # It is not listed, but begins like "TPU v4", which is another chip.
    if device_kind.startswith("TPU v4 lite"):
        return None
    return next((peak for name, peak in DEVICE_PEAKS if device_kind.startswith(name)), None)


class Lap(NamedTuple):
    """What happened since the last lap: updates, seconds in steps, seconds waiting for data."""

    updates: int
    seconds: float
    data_wait: float


class Meter:
    """Measures the speed of a run from the host; a few microseconds per step."""

    def __init__(
        self,
        batch_size: int,
        flops_per_example: float = 0.0,
        device_kind: str = "",
        device_count: int = 1,
        window: int = 200,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """`batch_size` is global; `window` is in calls of the step."""
        peak = device_peak(device_kind)
        self._batch_size = batch_size
        self._flops_over_peak = flops_per_example / (peak * device_count) if peak else None
        self._clock = clock
        self._window: deque[Lap] = deque(maxlen=window)
        self._mark: float | None = None
        self._paused = 0.0
        self._wait = 0.0
        self._lap = Lap(0, 0.0, 0.0)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time in its body is not the step's: evaluation, a save, a compilation."""
        begin = self._clock()
        try:
            yield
        finally:
            self._paused += self._clock() - begin

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wraps `next(batches)`: the time in its body is a wait for data."""
        begin = self._clock()
        try:
            yield
        finally:
            self._wait += self._clock() - begin

    def step(self, updates: int = 1) -> None:
        """A call with `updates` updates has finished. The first call only starts the clock."""
        now = self._clock()
        if self._mark is not None:
            seconds = max(now - self._mark - self._paused, 0.0)
            wait = min(self._wait, seconds)
            self._window.append(Lap(updates, seconds, wait))
            done = self._lap
            self._lap = Lap(
                done.updates + updates, done.seconds + seconds - wait, done.data_wait + wait
            )
        self._mark = now
        self._paused = self._wait = 0.0

    def lap(self) -> Lap:
        """The updates since the last lap; its `seconds` exclude the wait. For `EventLog.train`."""
        finished, self._lap = self._lap, Lap(0, 0.0, 0.0)
        return finished

    def median_seconds(self) -> float | None:
        """Median seconds per update over the window; None before the second call."""
        return float(np.median(self._seconds_per_update())) if self._window else None

    def summary(self) -> dict[str, float]:
        """`perf/*` metrics over the window; empty before the second call."""
        if not self._window:
            return {}
        per_update = self._seconds_per_update()
        total = max(sum(lap.seconds for lap in self._window), 1e-9)
        examples = self._batch_size * sum(lap.updates for lap in self._window)
        result = {
            "perf/step_seconds": float(np.median(per_update)),
            "perf/step_seconds_p95": float(np.percentile(per_update, 95)),
            "perf/examples_per_second": examples / total,
            "perf/data_wait_fraction": sum(lap.data_wait for lap in self._window) / total,
        }
        if self._flops_over_peak:
            result["perf/mfu"] = self._flops_over_peak * examples / total
        return result

    def _seconds_per_update(self) -> np.ndarray:
        return np.array([lap.seconds / lap.updates for lap in self._window])


class Progress:
    """A bar on a terminal, one aligned line per logged step elsewhere, nothing if not `main`."""

    def __init__(
        self,
        total: int,
        first: int = 0,
        main: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.perf_counter,
        lines: Callable[[Mapping[str, float]], list[str]] = no_lines,
        headline: Sequence[str] = (),
    ):
        """`total` and `first` (the resumed step) are in steps.

        Args:
          lines: what follows a logged step.
          headline: the metrics of an evaluation that are shown; empty: all.
        """
        self._total, self._first, self._main = total, first, main
        self._lines, self._headline = lines, headline
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._origin: tuple[float, int] | None = None  # when the first step was done, and which
        self._refreshed = -REFRESH_SECONDS
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        if main and self._stream.isatty():
            self._bar, self._task = _terminal_bar(self._stream, total, first)

    def step(self, step: int) -> None:
        """After every step; redraws at most five times a second."""
        now = self._clock()
        if self._origin is None:
            self._origin = (now, step)
        if self._bar is None or now - self._refreshed < REFRESH_SECONDS:
            return
        self._refreshed = now
        assert self._task is not None  # for the type checker: it is set with the bar
        self._bar.update(self._task, completed=step, eta=self._eta(step))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """At each log step, with the row that goes to `metrics.jsonl`."""
        facts = _facts(metrics)
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, completed=step, facts="  ".join(facts), eta=self._eta(step)
            )
        elif self._main:
            done = f"{step:>{len(str(self._total))}}/{self._total}"
            share = f"{100 * step / max(self._total, 1):5.1f} %"
            line = "  ".join(["step", done, share, *facts, f"eta {self._eta(step)}"])
            print(line, file=self._stream, flush=True)
            for line in self._lines(metrics):
                print(line, file=self._stream, flush=True)

    def say(self, sentence: str) -> None:
        """A sentence of its own line: an evaluation, a guard, a saved checkpoint."""
        if self._bar is not None:
            self._bar.console.print(sentence, markup=False, highlight=False)
        elif self._main:
            print(sentence, file=self._stream, flush=True)

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """The metrics of one evaluation, on one line."""
        shown = [name for name in self._headline or metrics if name in metrics]
        values = "  ".join(f"{name} {format_number(metrics[name])}" for name in shown)
        self.say(f"eval {step:>{len(str(self._total))}}  {values}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _eta(self, step: int) -> str:
        """From the wall time since the first step: evaluations and saves are counted in."""
        if self._origin is None or step <= self._origin[1]:
            return "?"
        began, first = self._origin
        return format_duration((self._clock() - began) / (step - first) * (self._total - step))


def format_duration(seconds: float) -> str:
    """`48 s`, `12 min`, `3 h 05 min`, `2 d 04 h`."""
    whole = max(round(seconds), 0)
    if whole < 100:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(minutes / 60)
    return f"{hours // 24} d {hours % 24:02d} h"


def format_number(value: float) -> str:
    """Four significant digits: `0.4312`, `1.235e-05`, `12346`."""
    if value == 0 or not np.isfinite(value):
        return f"{value:g}"
    if 1e4 <= abs(value) < 1e7:
        return f"{value:.0f}"
    return f"{value:#.4g}".rstrip(".") if 1e-3 <= abs(value) < 1e4 else f"{value:.3e}"


def _facts(metrics: Mapping[str, float]) -> list[str]:
    """The aligned columns of a progress line, for the metrics that are there."""
    columns = (
        ("train/loss", "loss {:<10}"),
        ("train/grad_norm", "grad {:<9}"),
        ("train/learning_rate", "rate {:<9}"),
        ("perf/examples_per_second", "{:>7} examples/s"),
    )
    return [text.format(format_number(metrics[name])) for name, text in columns if name in metrics]


def _terminal_bar(stream: TextIO, total: int, first: int) -> tuple[RichProgress, TaskID]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as RichProgress

    bar = RichProgress(
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TextColumn("eta {task.fields[eta]}", style="dim"),
        console=Console(file=stream),
        refresh_per_second=5,
    )
    task = bar.add_task("", total=total, completed=first, facts="", eta="?")
    bar.start()
    return bar, task
