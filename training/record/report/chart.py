"""Line charts as inline SVG: axes with round ticks, log scale, raw and smoothed lines, marks.

Symbols: x is in steps and y in the metric's unit; `px`, `py` are user units of the SVG, which are
about one CSS pixel at the width of a column. Hover values travel in the attribute `data-chart`.
"""

from __future__ import annotations

import html
import json
import math
from dataclasses import dataclass, field

import numpy as np

from training.record.progress import format_number

WIDTH, HEIGHT = 372, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 22
RAW_BUCKETS = 140  # two points each: the lowest and the highest value survive
SMOOTH_POINTS = 160
SMOOTHED_FROM = 60  # points; a shorter series is drawn as it is
DOTTED_UNTIL = 40  # points; so few are drawn with dots
LOG_RATIO = 30.0


@dataclass(frozen=True)
class Series:
    """One line: `steps` ascending [n], `values` [n], may be non-finite; `color` from 0 to 7."""

    label: str
    steps: np.ndarray
    values: np.ndarray
    color: int


@dataclass(frozen=True)
class Chart:
    """One chart. `log` None decides by the range; `levels` are horizontal lines (y, label)."""

    title: str
    unit: str
    series: tuple[Series, ...]
    log: bool | None = None
    levels: tuple[tuple[float, str], ...] = ()
    marks: tuple[float, ...] = ()
    marks_label: str = ""


@dataclass(frozen=True)
class Scale:
    """Maps a value to user units. Log scales take the logarithm first."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    ticks: tuple[float, ...] = field(default=())

    def __call__(self, value: np.ndarray) -> np.ndarray:
        # Clipped: an outlier is drawn at the edge, and a logarithm never sees zero.
        shown = np.clip(np.asarray(value, float), self.low, self.high)
        low, high = self.low, self.high
        if self.log:
            shown, low, high = np.log10(shown), math.log10(low), math.log10(high)
        return self.start + (shown - low) / (high - low) * (self.end - self.start)


def draw(chart: Chart, last_step: float) -> str:
    """The `<figure>`: caption with a legend of last values, and the SVG."""
    x_scale = _step_scale(last_step)
    y_scale = value_scale(chart)
    parts = [_axes(x_scale, y_scale)]
    for level, label in chart.levels:
        parts.append(_level(y_scale, level, label))
    for mark in chart.marks:
        px = f"{float(x_scale(np.array(mark))):.1f}"
        parts.append(f'<path class="mark" d="M{px} {HEIGHT - BOTTOM}v-7"/>')
    parts += [_line(series, x_scale, y_scale) for series in chart.series]
    parts.append(f'<path class="guide" d="M0 {TOP}V{HEIGHT - BOTTOM}"/>')
    label = html.escape(f"{chart.title} over steps")
    return (
        f'<figure class="chart" data-chart="{html.escape(_hover_data(chart, x_scale))}">'
        f"{_caption(chart, y_scale)}"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg></figure>"
    )


def value_scale(chart: Chart) -> Scale:
    """The y scale: all finite values and levels, without extreme outliers on a linear axis."""
    finite = np.concatenate([series.values for series in chart.series])
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        finite = np.array([0.0, 1.0])
    log = is_log(finite) if chart.log is None else chart.log and bool((finite > 0).all())
    low, high = (finite.min(), finite.max()) if log else _without_outliers(finite)
    # A level far away, such as a clip that is never reached, must not flatten the curve.
    near = [y for y, _ in chart.levels if low / 3 <= y <= high * 3 and (y > 0 or not log)]
    low, high = min([low, *near]), max([high, *near])
    return _log_scale(low, high) if log else _linear_scale(low, high)


def is_log(finite: np.ndarray) -> bool:
    """Whether positive values span so much that a linear axis would hide most of them."""
    return bool((finite > 0).all() and np.ptp(np.log10(finite)) >= math.log10(LOG_RATIO))


def round_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Two to about `count` multiples of 1, 2 or 5 times a power of ten in [low, high]."""
    ticks = _multiples(low, high, count)
    return ticks if len(ticks) > 1 else _multiples(low, high, 2 * count)


def _multiples(low: float, high: float, count: int) -> list[float]:
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    # 0.999: rounding must not choose the next larger step.
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    # 1e-9: rounding must not lose a tick that lies on an end.
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def format_tick(value: float) -> str:
    """Short: `0.05`, `1e-4`, `20k`, `1.5M`."""
    size = abs(value)
    if size >= 1e12 or 0 < size < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            # k divides by 1,000 although it begins at 10,000: four digits are short enough.
            return f"{value / (1e3 if suffix == 'k' else limit):.4g}{suffix}"
    return f"{value:.4g}"


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centered moving mean of the finite values, shorter at the ends; NaN where there are none."""
    finite = np.isfinite(values)
    # A mean is a difference of running sums: one pass for any window.
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    index = np.arange(len(values))
    half = np.minimum(np.minimum(index, len(values) - 1 - index), window // 2)
    total, count = sums[index + half + 1] - sums[index - half], counts[index + half + 1]
    count = count - counts[index - half]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def thin_extremes(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest point of each of `RAW_BUCKETS` buckets; non-finite points are kept."""
    if len(steps) <= 2 * RAW_BUCKETS:
        return steps, values
    keep = set(np.flatnonzero(~np.isfinite(values)))
    for bucket in np.array_split(np.arange(len(steps)), RAW_BUCKETS):
        finite = bucket[np.isfinite(values[bucket])]
        if finite.size:
            keep |= {finite[np.argmin(values[finite])], finite[np.argmax(values[finite])]}
    order = np.array(sorted(keep))
    return steps[order], values[order]


def _thin_evenly(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(steps) <= SMOOTH_POINTS:
        return steps, values
    order = np.unique(np.linspace(0, len(steps) - 1, SMOOTH_POINTS).round().astype(int))
    return steps[order], values[order]


def _smoothed(series: Series, log: bool) -> np.ndarray:
    window = max(3, len(series.values) // 40)
    if not log:
        return smooth(series.values, window)
    positive = np.where(series.values > 0, series.values, np.nan)
    return 10.0 ** smooth(np.log10(positive), window)


def _step_scale(last_step: float) -> Scale:
    high = max(float(last_step), 1.0)
    ticks = tuple(round_ticks(0.0, high, 4))
    return Scale(0.0, high, LEFT, WIDTH - RIGHT - 4, ticks=ticks)


def _linear_scale(low: float, high: float) -> Scale:
    # A flat line has no span.
    span = high - low or abs(high) * 0.2 or 1.0
    low, high = low - 0.06 * span, high + 0.06 * span
    return Scale(low, high, HEIGHT - BOTTOM, TOP, ticks=tuple(round_ticks(low, high)))


def _log_scale(low: float, high: float) -> Scale:
    low, high = low / 1.15, high * 1.15
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    span = math.log10(high) - math.log10(low)
    stride = max(1, math.ceil(span / 5))
    factors = (1,) if span > 2.5 else (1, 3) if span > 1.3 else (1, 2, 5)
    ticks = [factor * 10.0**decade for decade in decades[::stride] for factor in factors]
    inside = tuple(tick for tick in ticks if low <= tick <= high)
    return Scale(low, high, HEIGHT - BOTTOM, TOP, log=True, ticks=inside)


def _without_outliers(finite: np.ndarray) -> tuple[float, float]:
    """Range of the values; points far outside the central 96 % are drawn at the edge instead."""
    low, high = float(finite.min()), float(finite.max())
    inner_low, inner_high = np.percentile(finite, [2, 98])
    span = inner_high - inner_low
    if len(finite) >= SMOOTHED_FROM and span > 0:
        low = max(low, inner_low - 1.5 * span)
        high = min(high, inner_high + 1.5 * span)
    return low, high


def _axes(x_scale: Scale, y_scale: Scale) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for tick in y_scale.ticks:
        py = float(y_scale(np.array(tick)))
        parts.append(f'<path class="grid" d="M{LEFT} {py:.1f}H{right}"/>')
        parts.append(
            f'<text class="y" x="{LEFT - 6}" y="{py + 3.5:.1f}">{format_tick(tick)}</text>'
        )
    for tick in x_scale.ticks:
        px = float(x_scale(np.array(tick)))
        # Centered, the last label would be cut off.
        kind = "x end" if px > right - 14 else "x"
        px = right if px > right - 14 else px
        parts.append(
            f'<text class="{kind}" x="{px:.1f}" y="{HEIGHT - 6}">{format_tick(tick)}</text>'
        )
    parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{right}"/>')
    return "".join(parts)


def _level(y_scale: Scale, level: float, label: str) -> str:
    """A horizontal line; one outside the shown range is left out."""
    if not y_scale.low <= level <= y_scale.high:
        return ""
    py = float(y_scale(np.array(level)))
    text_y = py - 3 if py > TOP + 14 else py + 12
    text = f"{label} {format_tick(level)}"
    return (
        f'<path class="level" d="M{LEFT} {py:.1f}H{WIDTH - RIGHT}"/>'
        f'<text class="note" x="{WIDTH - RIGHT}" y="{text_y:.1f}">{html.escape(text)}</text>'
    )


def _line(series: Series, x_scale: Scale, y_scale: Scale) -> str:
    smoothed = len(series.steps) >= SMOOTHED_FROM
    raw = _path(*thin_extremes(series.steps, series.values), x_scale, y_scale)
    color = f"s{series.color}"
    parts = [f'<path class="{"raw" if smoothed else "line"} {color}" d="{raw}"/>']
    if smoothed:
        values = _smoothed(series, y_scale.log)
        path = _path(*_thin_evenly(series.steps, values), x_scale, y_scale)
        parts.append(f'<path class="line {color}" d="{path}"/>')
    if len(series.steps) <= DOTTED_UNTIL:
        finite = np.isfinite(series.values)
        for px, py in zip(x_scale(series.steps[finite]), y_scale(series.values[finite])):
            parts.append(f'<circle class="dot {color}" cx="{px:.1f}" cy="{py:.1f}" r="2.2"/>')
    # More than 50 crosses would be one solid bar.
    for px in x_scale(series.steps[~np.isfinite(series.values)])[:50]:
        py = HEIGHT - BOTTOM - 6
        parts.append(f'<path class="bad" d="M{px - 3:.1f} {py - 3}l6 6m0 -6l-6 6"/>')
    return "".join(parts)


def _path(steps: np.ndarray, values: np.ndarray, x_scale: Scale, y_scale: Scale) -> str:
    """Path data; a value that cannot be drawn interrupts the line."""
    drawable = np.isfinite(values) & ((values > 0) | (not y_scale.log))
    px, py = x_scale(steps), y_scale(np.where(drawable, values, y_scale.high))
    parts, move = [], True
    for index in range(len(steps)):
        if drawable[index]:
            parts.append(f"{'M' if move else 'L'}{px[index]:.1f} {py[index]:.1f}")
        move = not drawable[index]
    return "".join(parts)


def _caption(chart: Chart, y_scale: Scale) -> str:
    """Title, unit and the last value of each series; one series needs no name and no swatch."""
    alone = len(chart.series) == 1 and not chart.marks
    entries = []
    for series in chart.series:
        name = "" if len(chart.series) == 1 else html.escape(series.label)
        swatch = "" if alone else f'<i class="s{series.color}"></i>{name} '
        last = format_number(float(series.values[-1]))
        entries.append(f'<span class="key">{swatch}<b>{last}</b></span>')
    if chart.marks:
        label = html.escape(chart.marks_label)
        entries.append(f'<span class="key"><i class="m"></i>{label}</span>')
    notes = [chart.unit] if chart.unit else []
    notes += ["log"] if y_scale.log else []
    note = html.escape(" · ".join([*notes, *_cut_off(chart, y_scale)]))
    return (
        f'<figcaption><span class="title">{html.escape(chart.title)} <small>{note}</small></span>'
        f'<span class="at"></span><span class="keys{" alone" * alone}">{"".join(entries)}</span>'
        "</figcaption>"
    )


def _cut_off(chart: Chart, y_scale: Scale) -> list[str]:
    """What the axis does not show, in words."""
    values = np.concatenate([series.values for series in chart.series])
    finite = values[np.isfinite(values)]
    notes = []
    if finite.size and finite.max() > y_scale.high:
        notes.append(f"peak {format_tick(float(finite.max()))} cut off")
    if finite.size and finite.min() < y_scale.low and not y_scale.log:
        notes.append(f"lowest {format_tick(float(finite.min()))} cut off")
    return notes


def _hover_data(chart: Chart, x_scale: Scale) -> str:
    """Steps and formatted values, at most `SMOOTH_POINTS` per series (raw values)."""
    series = []
    for line in chart.series:
        steps, values = _thin_evenly(line.steps, line.values)
        series.append(
            {"x": [int(step) for step in steps], "y": [format_number(float(y)) for y in values]}
        )
    frame = [x_scale.low, x_scale.high, x_scale.start, x_scale.end, WIDTH]
    return json.dumps({"frame": frame, "series": series}, separators=(",", ":"))
