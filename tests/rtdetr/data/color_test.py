"""Color changes: what each of them keeps, and that a draw stays inside its ranges."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from rtdetr.data.color import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    LUMA,
    SATURATION,
    ColorChange,
    draw_color,
    recolored,
)


@pytest.fixture(scope="module")
def pixels():
    # Away from black and white, so that nothing is clipped.
    return np.random.default_rng(0).integers(60, 160, (40, 50, 3), dtype=np.uint8)


def levels(difference) -> float:
    return float(np.abs(difference).max())


def test_nothing_drawn_changes_nothing(pixels):
    assert recolored(pixels, ColorChange()) is pixels
    for seed in range(20):
        change = draw_color(np.random.default_rng(seed), 0.0)
        assert (recolored(pixels, change) == pixels).all()


def test_brightness_multiplies(pixels):
    for factor in BRIGHTNESS:
        found = recolored(pixels, ColorChange(brightness=factor))
        assert levels(found - pixels * factor) <= 1
    assert recolored(np.full((2, 2, 3), 250, np.uint8), ColorChange(brightness=1.1)).min() == 255


def test_contrast_stretches_around_the_mean_gray(pixels):
    mean = (pixels.reshape(-1, 3).mean(axis=0) * LUMA).sum()
    for factor in CONTRAST:
        found = recolored(pixels, ColorChange(contrast=factor))
        assert levels(found - (mean + factor * (pixels - mean)).clip(0, 255)) <= 1


def test_saturation_keeps_the_gray_and_stretches_the_rest(pixels):
    gray = (pixels @ LUMA)[..., None]
    for factor in SATURATION:
        found = recolored(pixels, ColorChange(saturation=factor))
        assert levels(found - (gray + factor * (pixels - gray)).clip(0, 255)) <= 1
    assert np.ptp(recolored(pixels, ColorChange(saturation=0.0)), axis=-1).max() <= 1


@pytest.mark.parametrize("turns", [*HUE, 0.25, -0.25])
def test_hue_turns_the_color_circle(pixels, turns):
    found = recolored(pixels, ColorChange(hue=turns)).reshape(-1, 3)[::37]
    for before, after in zip(pixels.reshape(-1, 3)[::37], found):
        hue, saturation, value = colorsys.rgb_to_hsv(*(before / 255))
        expected = np.array(colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value)) * 255
        # Hue, saturation and value are rounded to 8 bits on the way: hue to 1/512 of a turn,
        # which is 6 * 255 / 512 levels of a full color.
        assert levels(after - expected) <= 6
    gray = np.full((3, 3, 3), 77, np.uint8)
    assert (recolored(gray, ColorChange(hue=turns)) == gray).all()


def test_channels_change_places(pixels):
    found = recolored(pixels, ColorChange(order=(2, 0, 1)))
    assert (found == pixels[..., [2, 0, 1]]).all() and found.flags.c_contiguous


def test_contrast_comes_before_or_after(pixels):
    first, last = (
        ColorChange(contrast=1.5, saturation=1.5, contrast_first=order) for order in (True, False)
    )
    one, other = recolored(pixels, first), recolored(pixels, last)
    assert (one != other).any()
    by_steps = recolored(recolored(pixels, ColorChange(saturation=1.5)), ColorChange(contrast=1.5))
    assert (other == by_steps).all()


def test_draws_are_in_range_and_as_frequent_as_asked():
    generator = np.random.default_rng(1)
    draws = [draw_color(generator, 0.3) for _ in range(4000)]
    ranges = dict(brightness=BRIGHTNESS, contrast=CONTRAST, saturation=SATURATION, hue=HUE)
    spread = 5 * (0.3 * 0.7 / len(draws)) ** 0.5
    for name, (low, high) in ranges.items():
        values = [getattr(draw, name) for draw in draws if getattr(draw, name) is not None]
        assert abs(len(values) / len(draws) - 0.3) < spread, name
        assert low <= min(values) < low + 0.05 * (high - low), name
        assert high - 0.05 * (high - low) < max(values) <= high, name
    orders = [draw.order for draw in draws if draw.order]
    assert abs(len(orders) / len(draws) - 0.3) < spread and len(set(orders)) == 6
    assert abs(np.mean([draw.contrast_first for draw in draws]) - 0.5) < 0.05


def test_the_given_pixels_are_left_alone(pixels):
    before = pixels.copy()
    recolored(pixels, draw_color(np.random.default_rng(0), 1.0))
    assert (pixels == before).all()
