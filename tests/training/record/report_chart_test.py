"""Charts: positions against closed forms, spikes that survive thinning, honest axes."""

from __future__ import annotations

import re

import numpy as np
import pytest

from training.record.report.chart import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    Scale,
    Series,
    draw,
    format_tick,
    is_log,
    round_ticks,
    smooth,
    thin_extremes,
    value_scale,
)


def series_of(values, steps=None):
    values = np.asarray(values, float)
    return Series("x", np.arange(len(values), dtype=float) if steps is None else steps, values, 0)


def chart_of(*lines, **options):
    return Chart("Loss", "", tuple(lines), **options)


def line_points(svg):
    """Pixel positions of the first bold line."""
    data = re.search(r'class="line s0" d="([^"]+)"', svg).group(1)
    return np.array(
        [[float(x) for x in pair.split()] for pair in re.findall(r"[\d.]+ [\d.]+", data)]
    )


def test_linear_and_logarithmic_scales_follow_their_formulas():
    linear = Scale(2.0, 6.0, 100.0, 0.0)
    assert linear(np.array([2.0, 3.0, 6.0])) == pytest.approx([100, 75, 0])
    log = Scale(1e-3, 1e1, 80.0, 0.0, log=True)
    assert log(np.array([1e-3, 1e-2, 1.0, 10.0])) == pytest.approx([80, 60, 20, 0])


def test_values_beyond_the_axis_are_drawn_at_its_edge():
    assert Scale(0.0, 1.0, 50.0, 0.0)(np.array([-4.0, 9.0])) == pytest.approx([50, 0])


def test_the_line_passes_through_the_data():
    svg = draw(chart_of(series_of([1.0, 3.0, 2.0])), last_step=2)
    points = line_points(svg)
    right = WIDTH - RIGHT - 4
    assert points[:, 0] == pytest.approx([LEFT, (LEFT + right) / 2, right], abs=0.1)
    heights = (points[:, 1] - points[0, 1]) / (points[1, 1] - points[0, 1])
    assert heights == pytest.approx([0, 1, 0.5], abs=0.01)
    assert points[:, 1].min() > TOP and points[:, 1].max() < HEIGHT - BOTTOM


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.5, 1]), (0, 30000, [0, 10000, 20000, 30000]), (0.31, 0.79, [0.4, 0.6])],
)
def test_ticks_are_round(low, high, ticks):
    assert round_ticks(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize("low", [-3.7, 0.0, 1e-9, 299.9])
@pytest.mark.parametrize("span", [1e-10, 0.013, 1.0, 7.77e5])
def test_there_are_always_two_to_nine_ticks_inside_the_range(low, span):
    ticks = round_ticks(low, low + span)
    assert 2 <= len(ticks) <= 9
    assert low - 1e-6 * span <= ticks[0] and ticks[-1] <= low + span * (1 + 1e-6)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.05, "0.05"),
        (1e-4, "1e-4"),
        (2.5e-7, "2.5e-7"),
        (2e4, "20k"),
        (1.5e6, "1.5M"),
        (1e14, "1e14"),
    ],
)
def test_tick_labels_are_short(value, text):
    assert format_tick(value) == text


def test_a_wide_positive_range_is_logarithmic_and_a_sign_change_never():
    assert is_log(np.array([1e-3, 1.0]))
    assert not is_log(np.array([0.5, 1.0])) and not is_log(np.array([-1e-3, 1.0]))
    assert "log</small>" in draw(chart_of(series_of([1e-3, 1.0])), 1)


def test_a_single_spike_survives_thinning():
    values = np.ones(10_000)
    values[[1234, 7777]] = 50.0, -3.0
    values[5000] = np.nan
    steps, kept = thin_extremes(np.arange(10_000.0), values)
    assert len(steps) <= 300 and {1234.0, 5000.0, 7777.0} <= set(steps)
    assert np.nanmax(kept) == 50.0 and np.nanmin(kept) == -3.0


def test_smoothing_is_the_moving_mean_and_ignores_gaps():
    values = np.random.default_rng(0).normal(size=50)
    expected = np.convolve(values, np.ones(5) / 5, mode="valid")
    np.testing.assert_allclose(smooth(values, 5)[2:-2], expected, atol=1e-12)
    assert smooth(np.array([1.0, np.nan, 3.0]), 3)[1] == pytest.approx(2.0)
    np.testing.assert_array_equal(smooth(np.full(3, np.nan), 3), np.full(3, np.nan))


def test_a_non_finite_value_interrupts_the_line_and_is_marked():
    svg = draw(chart_of(series_of([1.0, 2.0, np.nan, 2.0, 1.0])), 4)
    path = re.search(r'class="line s0" d="([^"]+)"', svg).group(1)
    assert path.count("M") == 2 and svg.count('class="bad"') == 1
    assert "nan" not in path


def test_an_outlier_does_not_flatten_the_curve_and_is_told():
    values = np.concatenate([np.linspace(1, 2, 200), [30.0]])
    chart = chart_of(series_of(values), log=False)
    assert value_scale(chart).high < 4
    assert "peak 30 cut off" in draw(chart, 200)


def test_a_level_is_drawn_where_it_is_near_the_data():
    values = series_of([0.2, 0.9])
    near, far = (draw(chart_of(values, levels=((y, "clip at"),)), 1) for y in (1.0, 50.0))
    assert 'class="level"' in near and "clip at 1" in near and 'class="level"' not in far


@pytest.mark.parametrize(
    "values", [[np.nan, np.nan], [np.inf, 1.0], [0.0, 0.0], [5.0, 5.0], [1e-300, 1e300], [-1, 0]]
)
def test_awkward_values_draw_finite_coordinates(values):
    svg = draw(chart_of(series_of(values)), 1)
    coordinates = " ".join(re.findall(r' (?:d|cx|cy|x|y)="([^"]*)"', svg))
    assert "nan" not in coordinates and "inf" not in coordinates
