"""`report.html` of a pipeline: what each stage reached, and how quality grew with time.

Built from the work folders of the stages, each of which has a report of its own. Time is that of
the runs themselves: pauses between stages and between launches do not count.
"""

from __future__ import annotations

import html

import numpy as np
from etils import epath

from training import storage
from training.record.events import read_events
from training.record.report import style, tables
from training.record.report.chart import Chart, Series, draw
from training.record.report.read import RunRecord, read_run
from training.storage import PathLike

PREFIX = "eval/"
MINUTE = 60.0


def stages_of(workdir: PathLike) -> list[str]:
    """Names of the stages that have begun, in turn; none of a folder that is no pipeline's."""
    workdir = storage.as_path(workdir)
    if not workdir.is_dir() or (workdir / "config.json").exists():
        return []
    begun = {
        folder.name: events[0]["time"]
        for folder in workdir.iterdir()
        if (folder / "config.json").exists() and (events := read_events(folder))
    }
    return sorted(begun, key=begun.__getitem__)


def write_pipeline_report(workdir: PathLike) -> epath.Path:
    """Writes `workdir/report.html` about the stages that have begun; returns its path."""
    workdir = storage.as_path(workdir)
    runs = {name: read_run(workdir / name) for name in stages_of(workdir)}
    path = workdir / "report.html"
    with storage.explained(workdir, "write the report again"):
        storage.replace_text(path, render(storage.absolute(workdir).name, runs))
    return path


def render(name: str, runs: dict[str, RunRecord]) -> str:
    """The page as HTML; `runs` by name of the stage, in turn."""
    title = html.escape(name)
    charts = "".join(draw(chart, end) for chart, end in quality(runs))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{style.CSS}</style></head><body>"
        f'<header><div class="over">podvision</div><h1>{title}</h1>'
        f'<p class="lead">{html.escape(", then ".join(runs))}.</p></header>'
        f"<h2>After each stage</h2>{_table(runs)}"
        f'<h2>Quality over time, minutes</h2><div class="charts">{charts}</div>'
        f"<script>{style.SCRIPT}</script></body></html>\n"
    )


def quality(runs: dict[str, RunRecord]) -> list[tuple[Chart, float]]:
    """A chart of each metric that every stage evaluates, over minutes, and its last minute."""
    shared = [
        name
        for name in next(iter(runs.values())).curves
        if name.startswith(PREFIX) and all(name in run.curves for run in runs.values())
    ]
    moments, passed = {}, 0.0
    for stage, run in runs.items():
        moments[stage] = {step: passed + own for step, own in evaluated_at(run).items()}
        passed += run.goodput.get("wall", 0.0)
    charts = []
    for metric in shared:
        series = []
        for color, (stage, run) in enumerate(runs.items()):
            points = [
                (moments[stage][int(step)] / MINUTE, value)
                for step, value in zip(*run.curves[metric], strict=True)
                if int(step) in moments[stage]
            ]
            if points:
                minutes, values = np.array(points, float).T
                series.append(Series(stage, minutes, values, color % 8))
        if len({float(value) for line in series for value in line.values}) > 1:
            chart = Chart(metric.removeprefix(PREFIX), "", tuple(series), log=False)
            charts.append((chart, max(passed / MINUTE, 1e-6)))
    return charts


def evaluated_at(run: RunRecord) -> dict[int, float]:
    """Step of each evaluation -> seconds of this run until it had ended."""
    events = read_events(run.workdir)
    found, passed, before = {}, 0.0, None
    for event in events:
        # A launch begins the clock anew: nothing ran before it.
        if before is not None and event["event"] != "launch":
            passed += event["time"] - before
        before = event["time"]
        if event["event"] == "eval":
            found[int(event["step"])] = passed
    return found


def _table(runs: dict[str, RunRecord]) -> str:
    names = list(dict.fromkeys(name for run in runs.values() for name in run.curves))
    rows = []
    for name in (name for name in names if name.startswith(PREFIX)):
        cells = [html.escape(name.removeprefix(PREFIX))]
        for run in runs.values():
            last = run.curves[name][1][-1] if name in run.curves else None
            cells.append(html.escape(tables.cell_text(None if last is None else float(last))))
        rows.append(cells)
    states = ["state", *(html.escape(run.ending.state) for run in runs.values())]
    wall = [tables.cell_text(run.goodput.get("wall", 0.0) / MINUTE) for run in runs.values()]
    links = [f'<a href="{html.escape(stage)}/report.html">its report</a>' for stage in runs]
    rows = [states, ["minutes", *wall], ["", *links], *rows]
    return tables.table_html(["Metric", *runs], rows, set(range(1, len(runs) + 1)), {0})
