"""Reads a work folder for the report. What is missing is left out; what is broken is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from etils import epath

from training import storage
from training.record.events import EVENTS_FILE, goodput, read_events
from training.record.metrics import METRICS_FILE, merge_steps, read_json_lines
from training.storage import PathLike

Curve = tuple[np.ndarray, np.ndarray]  # steps [n] and values [n], float64


@dataclass(frozen=True)
class Ending:
    """How the run ended, or that it did not: `state` is running, done, preempted or stopped."""

    state: str
    reason: str


@dataclass(frozen=True)
class RunRecord:
    """Everything that the page shows.

    Attributes:
      facts: `config.json`: config, overrides, versions, revision, total_updates.
      curves: metric name -> steps and values.
      guards: `guards.json`; None when the file is absent.
      problems: one sentence per file or line that could not be read.
    """

    workdir: epath.Path
    facts: dict[str, Any]
    curves: dict[str, Curve]
    guards: list[dict[str, Any]] | None
    tables: list[dict[str, Any]]
    recordings: list[dict[str, Any]]
    goodput: dict[str, float]
    ending: Ending
    last_written: float | None
    problems: list[str] = field(default_factory=list)

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config, as nested dicts."""
        inner = self.facts.get("config")
        return inner if isinstance(inner, dict) else self.facts

    def setting(self, *keys: str) -> Any:
        """A value of the nested config, or None."""
        value: Any = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    @property
    def last_step(self) -> int:
        """Largest step of any metric; 0 for a run that logged none."""
        return int(max((steps[-1] for steps, _ in self.curves.values()), default=0))

    @property
    def total(self) -> int | None:
        """Updates that the run is to make, if known."""
        total = self.facts.get("total_updates") or self.setting("total", "updates")
        return int(total) if isinstance(total, int | float) else None


def read_run(workdir: PathLike) -> RunRecord:
    """Reads the folder; never fails on its content."""
    workdir = storage.as_path(workdir)
    problems: list[str] = []
    rows, sentences = read_json_lines(workdir / METRICS_FILE)
    problems += sentences
    if nameless := sum(not isinstance(row.get("step"), int) for row in rows):
        problems.append(f"{METRICS_FILE} lines without a step: {nameless}")
    # For its problems only; `read_events` below gives the events.
    problems += read_json_lines(workdir / EVENTS_FILE)[1]
    facts = _read_json(workdir / "config.json", dict, problems)
    guards = _read_json(workdir / "guards.json", list, problems)
    events = read_events(workdir)
    return RunRecord(
        workdir=workdir,
        facts=facts or {},
        curves=curves_of(merge_steps(rows)),
        guards=None if guards is None else [row for row in guards if isinstance(row, dict)],
        tables=_read_tables(workdir, problems),
        recordings=_read_recordings(workdir, problems),
        goodput=goodput(workdir),
        ending=_ending(workdir, events),
        last_written=events[-1]["time"] if events else None,
        problems=problems,
    )


def curves_of(rows: list[dict[str, Any]]) -> dict[str, Curve]:
    """Numeric values by metric name, in the order in which the names first appear."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                points.setdefault(name, []).append((row["step"], value))
    return {
        name: (np.array([step for step, _ in pairs], float), np.array([y for _, y in pairs], float))
        for name, pairs in points.items()
    }


def _ending(workdir: epath.Path, events: list[dict[str, Any]]) -> Ending:
    """A marker of the last launch decides; a stop by a guard leaves an event but no marker."""
    stop = next((e for e in reversed(events) if e["event"] in ("stop", "launch")), {})
    reason = str(stop.get("reason", ""))
    if (workdir / "DONE").exists():
        return Ending("done", reason)
    if stop.get("event") == "stop":
        return Ending(str(stop.get("state", "stopped")), reason)
    if (workdir / "PREEMPTED").exists():
        return Ending("preempted", reason)
    return Ending("running", "No end was recorded: it is running, or it was killed.")


def _read_json(path: epath.Path, kind: type, problems: list[str]) -> Any:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{path.name} is not valid JSON ({error}) and was left out")
        return None
    if not isinstance(content, kind):
        problems.append(f"{path.name} does not hold a JSON {kind.__name__} and was left out")
        return None
    return content


def _read_tables(workdir: epath.Path, problems: list[str]) -> list[dict[str, Any]]:
    """`tables/*.json`, each one table {title, columns, rows} or a list of them."""
    tables = []
    for path in sorted((workdir / "tables").glob("*.json")):
        content = _read_json(path, object, problems)
        for table in content if isinstance(content, list) else [content]:
            if _is_table(table):
                tables.append(table)
            elif content is not None:
                problems.append(f"tables/{path.name} lacks title, columns or rows of that width")
    return tables


def _is_table(table: Any) -> bool:
    if not isinstance(table, dict) or not {"title", "columns", "rows"} <= table.keys():
        return False
    if not isinstance(table["columns"], list) or not isinstance(table["rows"], list):
        return False
    width = len(table["columns"])
    pictures = table.get("pictures", [""] * len(table["rows"]))
    if not isinstance(pictures, list) or not all(isinstance(name, str) for name in pictures):
        return False
    if len(pictures) != len(table["rows"]):
        return False
    return all(isinstance(row, list) and len(row) == width for row in table["rows"])


def _read_recordings(workdir: epath.Path, problems: list[str]) -> list[dict[str, Any]]:
    records = []
    for path in (workdir / "recorder").glob("*/record.json"):
        record = _read_json(path, dict, problems)
        if record is not None and isinstance(record.get("step"), int):
            records.append(record)
    return sorted(records, key=lambda record: record["step"])
