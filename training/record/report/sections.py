"""Header, key numbers, wall time and provenance; everything from the folder is escaped."""

from __future__ import annotations

import html
import json
import re
from datetime import UTC, datetime

import numpy as np

from training import storage
from training.record.presentation import presentation_of
from training.record.progress import format_duration, format_number
from training.record.report import tables, verdicts
from training.record.report.read import RunRecord

BUCKETS = (
    ("productive", "training", "var(--c2)"),
    ("data_wait", "waiting for data", "var(--c1)"),
    ("eval", "evaluation", "var(--c0)"),
    ("checkpoint", "checkpoints", "var(--c5)"),
    ("compile", "compiling", "var(--c3)"),
    ("init", "initialization", "var(--c6)"),
    ("lost", "lost work", "var(--bad)"),
    ("downtime", "downtime", "var(--c4)"),
    ("other", "other", "var(--c7)"),
)


def title(run: RunRecord) -> str:
    """What the run is about where its system says so (a scene), else the run's name."""
    return presentation_of(run.setting("system")).subject(run.config) or _name(run)


def _name(run: RunRecord) -> str:
    return str(run.config.get("name") or storage.absolute(run.workdir).name)


def header(run: RunRecord) -> str:
    """Name, system and state, and the run in one paragraph."""
    state = html.escape(run.ending.state)
    over = ["podvision", str(run.config.get("system", ""))]
    if title(run) != _name(run):
        over.append(_name(run))
    if run.last_written is not None:
        written = datetime.fromtimestamp(run.last_written, UTC).strftime("%Y-%m-%d %H:%M UTC")
        over.append(f"last written {written}")
    return (
        f'<header><div class="over">{html.escape(" · ".join(part for part in over if part))}</div>'
        f'<h1>{html.escape(title(run))} <span class="state {state}">{state}</span></h1>'
        f'<p class="lead">{html.escape(" ".join(_sentences(run)))}</p></header>'
    )


def tiles(run: RunRecord) -> str:
    """The key numbers; a number that is not known has no tile."""
    cells: list[tuple[str, str, str]] = []
    if run.curves:
        share = f"{run.last_step / run.total:.0%} of {run.total:,}" if run.total else ""
        cells.append(("Steps", f"{run.last_step:,}", share))
    cells += _best_metric(run)
    if "train/loss" in run.curves:
        first, last = run.curves["train/loss"][1][[0, -1]]
        cells.append(("Loss", format_number(last), f"from {format_number(first)}"))
    for key, title, note in (
        ("perf/examples_per_second", "Examples per second", ""),
        ("perf/step_seconds", "Step time", "median"),
        ("perf/mfu", "MFU", "of the peak"),
    ):
        if key in run.curves:
            cells.append((title, _speed_text(key, run.curves[key][1]), note))
    if run.goodput:
        wall = f"of {format_duration(run.goodput['wall'])}"
        cells.append(("Goodput", f"{run.goodput['goodput']:.0%}", wall))
    skipped = run.curves.get("train/skipped")
    if skipped is not None:
        cells.append(("Skipped updates", f"{skipped[1][-1]:.0f}", ""))
    body = "".join(
        f'<div class="tile"><span>{html.escape(title)}</span><b>{html.escape(value)}</b>'
        f"<small>{html.escape(note)}</small></div>"
        for title, value, note in cells
    )
    return f'<div class="tiles">{body}</div>' if cells else ""


def goodput_bar(run: RunRecord) -> str:
    """Where the wall time went, as one bar."""
    if not run.goodput or run.goodput["wall"] <= 0:
        return '<p class="soft">No events were logged, so the wall time is not known.</p>'
    bar, keys = [], []
    for key, label, color in BUCKETS:
        seconds = run.goodput[key]
        share = seconds / run.goodput["wall"]
        # It would read 0.0 %.
        if share < 5e-4:
            continue
        bar.append(f'<i style="width:{100 * share:.2f}%;background:{color}"></i>')
        text = f"<b>{share:.1%}</b> {format_duration(seconds)}"
        keys.append(f'<span><i style="background:{color}"></i>{label} {text}</span>')
    launches = int(run.goodput["launches"])
    times = "launch" if launches == 1 else "launches"
    return (
        f'<div class="box"><p style="margin-top:0">{format_duration(run.goodput["wall"])} of wall '
        f'time in {launches} {times}</p><div class="bar">{"".join(bar)}</div>'
        f'<div class="barkeys">{"".join(keys)}</div></div>'
    )


def provenance(run: RunRecord) -> str:
    """Overrides, versions, commit, and the whole config folded."""
    if not run.facts:
        return '<p class="soft">No config.json was written.</p>'
    overrides = run.facts.get("overrides")
    if isinstance(overrides, dict):
        overrides = [f"{key} = {tables.cell_text(value)}" for key, value in overrides.items()]
    changed = "<br>".join(f"<code>{html.escape(str(item))}</code>" for item in overrides or [])
    versions = run.facts.get("versions")
    packages = [f"{k} {v}" for k, v in versions.items()] if isinstance(versions, dict) else []
    facts = {
        "Overrides": changed or "none",
        "Commit": html.escape(str(run.facts.get("revision") or "unknown")),
        "Versions": html.escape(", ".join(packages) or "not written"),
    }
    items = "".join(f"<dt>{title}</dt><dd>{value}</dd>" for title, value in facts.items())
    text = html.escape(json.dumps(run.config, indent=2, ensure_ascii=False))
    return (
        f'<div class="box"><dl class="facts">{items}</dl></div><details><summary>The whole config'
        f'</summary><div class="scroll"><pre>{text}</pre></div></details>'
    )


def problems(run: RunRecord) -> str:
    """Files and lines that could not be read."""
    if not run.problems:
        return ""
    # A dict keeps each problem once, in order.
    items = "".join(f"<p>{html.escape(problem)}.</p>" for problem in dict.fromkeys(run.problems))
    return f'<div class="left">Left out of this page:{items}</div>'


def _sentences(run: RunRecord) -> list[str]:
    steps = f"{run.last_step:,}" + (f" of {run.total:,}" if run.total else "") + " steps"
    spent = f" in {format_duration(run.goodput['wall'])}" if run.goodput else ""
    sentences = [f"{steps[:1].upper()}{steps[1:]}{spent}."] if run.curves else []
    if not run.curves:
        sentences.append("No metrics have been logged yet.")
    if run.ending.reason:
        sentences.append(_reason(run))
    if run.guards:
        sentences.append(verdicts.summary(run))
    return sentences


def _reason(run: RunRecord) -> str:
    """Why the run ended; only the name of a guard whose sentence stands in the box below."""
    reason = run.ending.reason
    failed = [str(g.get("name")) for g in run.guards or [] if verdicts.outcome(g) == "failed"]
    stopped_by = next((name for name in failed if f"[guard {name};" in reason), None)
    if stopped_by is not None:
        return f"The guard {stopped_by} stopped it."
    return reason[:1].upper() + reason[1:].rstrip(".") + "."


def _best_metric(run: RunRecord) -> list[tuple[str, str, str]]:
    """The metric that chooses the best checkpoint: its best and its last value."""
    name = run.setting("checkpoint", "best_metric")
    curve = run.curves.get(f"eval/{name}")
    if curve is None or not np.isfinite(curve[1]).any():
        return []
    steps, values = curve
    lowest = run.setting("checkpoint", "best_mode") == "min"
    index = int(np.nanargmin(values) if lowest else np.nanargmax(values))
    where = f"at step {int(steps[index]):,}"
    shown = re.sub("[/_]", " ", str(name))
    best = (f"Best {shown}", format_number(values[index]), where)
    return [best, (f"Last {shown}", format_number(values[-1]), f"at step {int(steps[-1]):,}")]


def _speed_text(key: str, values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    middle = float(np.median(finite)) if finite.size else float("nan")
    if key == "perf/mfu":
        return f"{middle:.1%}"
    if key == "perf/step_seconds":
        return f"{1000 * middle:.3g} ms" if middle < 1 else f"{middle:.3g} s"
    return f"{middle:.0f}" if middle >= 100 else f"{middle:.3g}"
