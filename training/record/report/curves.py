"""Which metrics share a chart, in which section, under which title and unit."""

from __future__ import annotations

import numpy as np

from training.record.presentation import Presentation, presentation_of
from training.record.report.chart import Chart, Series
from training.record.report.read import Curve, RunRecord

OPTIMIZATION = (
    "learning_rate",
    "grad_norm",
    "clip_scale",
    "update_norm",
    "param_norm",
    "ema_decay",
)
TOLD_ELSEWHERE = ("train/skipped",)  # a key number, and marks on the gradient norm
EVALUATION_COLOR = 1


def sections(run: RunRecord) -> list[tuple[str, list[Chart]]]:
    """Titles and charts in the order of the page; sections without a curve are left out."""
    curves = _without_repeats(run.curves)
    shown_as = presentation_of(run.setting("system"))
    groups = [
        ("Evaluation", _evaluation(curves, shown_as)),
        ("Loss", _loss(curves, shown_as)),
        ("Optimization", _optimization(run, curves, shown_as)),
        ("Speed", _speed(curves, shown_as)),
    ]
    # By identity: charts hold the very arrays of the curves.
    shown = {id(line.values) for _, charts in groups for chart in charts for line in chart.series}
    rest = [name for name, curve in curves.items() if id(curve[1]) not in shown]
    rest = [name for name in rest if name not in TOLD_ELSEWHERE]
    groups.append(("Further metrics", [_further(curves, name, shown_as) for name in rest]))
    moving = [(title, [chart for chart in charts if moves(chart)]) for title, charts in groups]
    return [(title, charts) for title, charts in moving if charts]


def _without_repeats(curves: dict[str, Curve]) -> dict[str, Curve]:
    """Curves of two points or more that are not equal to their parent (one term, one rate)."""
    kept = {}
    for name, curve in curves.items():
        parent = curves.get(name.rpartition("/")[0])
        repeats = parent is not None and all(map(np.array_equal, parent, curve))
        if len(curve[0]) > 1 and not repeats:
            kept[name] = curve
    return kept


def constants(run: RunRecord) -> dict[str, float]:
    """Metrics that never changed and are on no chart: a number says it all."""
    shown = {
        id(line.values) for _, charts in sections(run) for chart in charts for line in chart.series
    }
    return {
        name: float(curve[1][-1])
        for name, curve in run.curves.items()
        if id(curve[1]) not in shown and is_constant(curve) and name not in TOLD_ELSEWHERE
    }


def moves(chart: Chart) -> bool:
    """Whether any line of the chart is not constant."""
    return not all(is_constant((line.steps, line.values)) for line in chart.series)


def is_constant(curve: Curve) -> bool:
    """A single point or bit-identical finite values: no curve."""
    values = curve[1]
    return len(values) < 2 or bool(np.isfinite(values).all() and (values == values[0]).all())


def _evaluation(curves: dict[str, Curve], shown_as: Presentation) -> list[Chart]:
    """One chart per metric: every split, and the training value where it has the same name."""
    by_metric: dict[str, list[str]] = {}
    for name in curves:
        if name.startswith("eval/") and not _is_loss(name):
            by_metric.setdefault(name.split("/")[-1], []).append(name)
    charts = []
    for metric, names in by_metric.items():
        train = f"train/{metric}"
        # Training first, so that its line has the same color on every chart.
        names = ([train] if train in curves else []) + names
        charts.append(_chart(curves, names, shown_as))
    return charts


def _loss(curves: dict[str, Curve], shown_as: Presentation) -> list[Chart]:
    """The total, then every term, each with its value in evaluation; then the shares."""
    totals = [name for name in curves if name == "train/loss"]
    totals += [name for name in curves if _is_loss(name) and name.endswith("/loss")]
    charts = [_chart(curves, totals, shown_as)] if totals else []
    terms = [name for name in curves if name.startswith("train/loss/")]
    for name in terms if len(terms) > 1 else []:
        twin = name.replace("train/", "eval/", 1)
        names = [name, *([twin] if twin in curves else [])]
        charts.append(_chart(curves, names, shown_as))
    shares = [name for name in curves if name.startswith("train/share/")]
    if len(shares) > 1:
        series = _series(curves, shares)
        charts.append(Chart("Shares of the loss", "of the total value", series, log=False))
    return charts


def _optimization(run: RunRecord, curves: dict[str, Curve], shown_as: Presentation) -> list[Chart]:
    """The global number of each kind, then those of the parameter groups on a chart."""
    charts = []
    clip = run.setting("optimizer", "clip_norm")
    clip_levels = ((float(clip), "clip at"),) if isinstance(clip, int | float) else ()
    for key in (*OPTIMIZATION, *shown_as.optimization):
        title, unit = shown_as.title(key)
        name = f"train/{key}"
        groups = [other for other in curves if other.startswith(name + "/")]
        if name in curves and key == "grad_norm":
            series, skips = _series(curves, [name]), skipped_steps(run)
            charts.append(Chart(title, unit, series, None, clip_levels, skips, "skipped update"))
        elif name in curves:
            charts.append(_chart(curves, [name], shown_as))
        if groups:
            charts.append(Chart(f"{title} by group", unit, _series(curves, groups)))
    return charts


def _speed(curves: dict[str, Curve], shown_as: Presentation) -> list[Chart]:
    times = [f"perf/step_seconds{end}" for end in ("", "_p95")]
    times = [name for name in times if name in curves]
    charts = []
    if times:
        labels = {"perf/step_seconds": "median", "perf/step_seconds_p95": "95th percentile"}
        series = tuple(
            Series(labels[name], *curves[name], color) for color, name in enumerate(times)
        )
        charts.append(Chart("Step time", "s", series))
    others = [name for name in curves if name.startswith("perf/") and name not in times]
    return charts + [_chart(curves, [name], shown_as) for name in others]


def skipped_steps(run: RunRecord) -> tuple[float, ...]:
    """Log steps at which the count of skipped updates had risen."""
    steps, values = run.curves.get("train/skipped", (np.zeros(0), np.zeros(0)))
    before = np.concatenate([[0.0], values[:-1]])
    return tuple(float(step) for step in steps[values > before])


def _chart(curves: dict[str, Curve], names: list[str], shown_as: Presentation) -> Chart:
    title, unit = shown_as.title(names[0])
    linear = names[0] == "train/learning_rate"  # the shape of a schedule is known by its look
    return Chart(title, unit, _series(curves, names), False if linear else None)


def _further(curves: dict[str, Curve], name: str, shown_as: Presentation) -> Chart:
    """Titled by all of the name but its first part: `train/loss_set/0` is "Loss set 0"."""
    first, _, tail = name.partition("/")
    title, unit = shown_as.title((tail or first).replace("/", "_"))
    return Chart(title, unit, _series(curves, [name]))


def _series(curves: dict[str, Curve], names: list[str]) -> tuple[Series, ...]:
    """Training is blue and the first evaluation orange on every chart; labels by what differs."""
    lines, color = [], 0
    for position, name in enumerate(names):
        if position == 0 and name.startswith("eval/"):
            color = EVALUATION_COLOR
        # As many colors as `style` has.
        lines.append(Series(_label(name, names), *curves[name], color % 8))
        color += 1
    return tuple(lines)


def _label(name: str, names: list[str]) -> str:
    """`train`, `eval`, `eval test` for a split; the last part where only that differs."""
    parts = name.split("/")
    if len(names) > 1 and len({other.rsplit("/", 1)[0] for other in names}) == 1:
        return parts[-1]
    split = parts[1:-1] if parts[0] == "eval" else []
    return " ".join([parts[0], *(part for part in split if part != "loss")])


def _is_loss(name: str) -> bool:
    return name.startswith("eval/") and (name.endswith("/loss") or "/loss/" in name)
