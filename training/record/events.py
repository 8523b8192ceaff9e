"""Where the wall time of a run went: `events.jsonl` and the goodput computed from it.

Goodput = time spent in training steps whose result was kept / wall time since the first launch.
A *launch* is one start of the train command; the time between the last event of a launch and the
next launch is downtime; steps after the checkpoint from which the next launch resumed are lost.

One line per event: `event`, `time` (seconds since the epoch at its end), `step`, and `seconds`:
  launch      the process started and resumed at `step`
  train       `updates` updates ending at `step`, without the time spent waiting for data
  init, compile, data_wait, eval, checkpoint   time that the steps waited for
  stop        the end of the launch with `state` and `reason`; a killed launch has none
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from training import line_file, storage
from training.line_file import LineFile, Nowhere
from training.record.metrics import encode_json, read_json_lines
from training.storage import PathLike

EVENTS_FILE = "events.jsonl"
TIMED = ("init", "compile", "data_wait", "eval", "checkpoint")


class EventLog:
    """Appends events from the main process; a no-op on the others."""

    def __init__(
        self,
        workdir: PathLike,
        main: bool = True,
        # Not a monotonic clock: the events of several launches are compared.
        clock: Callable[[], float] = time.time,
        started: float | None = None,
    ):
        """`started` is when the process began, by the clock: initialization is counted from it."""
        self._clock = clock
        self._started = clock() if started is None else started
        self._file: LineFile = Nowhere()
        if main:
            self._file = line_file.open_lines(storage.as_path(workdir) / EVENTS_FILE)

    def launch(self, step: int) -> None:
        """State restored or created at `step`: everything until now was initialization."""
        self._write("launch", step, self._started)
        self.add("init", step, self._clock() - self._started)

    def add(self, event: str, step: int, seconds: float, **facts: Any) -> None:
        """Appends one timed event that ends now."""
        self._write(event, step, self._clock(), seconds=float(seconds), **facts)

    def train(self, step: int, updates: int, seconds: float, data_wait: float) -> None:
        """The updates since the last call; `Meter.lap` gives the three numbers."""
        self.add("train", step, seconds, updates=int(updates))
        if data_wait > 0:
            self.add("data_wait", step, data_wait)

    @contextmanager
    def measure(self, event: str, step: int) -> Iterator[None]:
        """Logs how long its body took, also one that ends by an exception."""
        begin = self._clock()
        try:
            yield
        finally:
            self.add(event, step, self._clock() - begin)

    def stop(self, step: int, state: str, reason: str) -> None:
        """The end: `state` is done, preempted or stopped; `reason` one sentence."""
        self._write("stop", step, self._clock(), state=state, reason=reason)

    def flush(self) -> None:
        """Returns once every event is in the file; in a bucket it is written with a delay."""
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _write(self, event: str, step: int, when: float, **facts: Any) -> None:
        row = {"event": event, "time": round(when, 3), "step": int(step), **facts}
        self._file.write(encode_json(row))


def read_events(workdir: PathLike) -> list[dict[str, Any]]:
    """The well-formed events of `workdir/events.jsonl` in the order of writing."""
    rows, _ = read_json_lines(storage.as_path(workdir) / EVENTS_FILE)
    return [row for row in rows if {"event", "time", "step"} <= row.keys()]


def goodput(workdir: PathLike) -> dict[str, float]:
    """Seconds per bucket and the share that was productive; empty before the first launch.

    Keys: `wall`, `productive`, `lost`, `downtime`, `other` and the names in `TIMED` (seconds),
    `launches` (count), `goodput` (productive / wall, 0 to 1).
    """
    launches = _launches(read_events(workdir))
    if not launches:
        return {}
    totals: dict[str, float] = dict.fromkeys(("productive", "lost", "downtime", *TIMED), 0.0)
    for position, events in enumerate(launches):
        following = launches[position + 1] if position + 1 < len(launches) else None
        resumed = following[0]["step"] if following else None
        for event in events:
            if event["event"] == "train":
                lost = event["seconds"] * _lost_fraction(event, resumed)
                totals["lost"] += lost
                totals["productive"] += event["seconds"] - lost
            elif event["event"] in TIMED:
                totals[event["event"]] += event["seconds"]
        if following:
            # At least 0: the next launch may be on a machine whose clock is behind.
            totals["downtime"] += max(following[0]["time"] - events[-1]["time"], 0.0)
    wall = launches[-1][-1]["time"] - launches[0][0]["time"]
    totals["other"] = max(wall - sum(totals.values()), 0.0)
    share = totals["productive"] / wall if wall > 0 else 0.0
    return {"wall": wall, **totals, "launches": float(len(launches)), "goodput": share}


def _launches(events: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    groups: list[list[dict[str, Any]]] = []
    for event in events:
        if event["event"] == "launch":
            groups.append([event])
        elif groups:
            groups[-1].append(event)
    return groups


def _lost_fraction(event: dict[str, Any], resumed: int | None) -> float:
    """Share of a train event's updates that lie after the step of the next launch."""
    if resumed is None:
        return 0.0
    updates = max(event.get("updates", 1), 1)
    return min(max(event["step"] - resumed, 0) / updates, 1.0)
