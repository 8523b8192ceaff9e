"""Sizes of the canvas: a fixed set, drawn by seed and update."""

from __future__ import annotations

from collections import Counter

from rtdetr.config import DataConfig, PhaseConfig
from rtdetr.data.scales import canvas_at, inside, variants_of

SIDES = (*range(480, 801, 32), 640, 640)
PUBLISHED = DataConfig(scales=tuple((side, side) for side in SIDES))


def test_the_published_set_is_eleven_canvases_and_640_comes_three_times():
    assert len(variants_of(PUBLISHED)) == 11 and variants_of(PUBLISHED)[0] == (640, 640)
    drawn = Counter(canvas_at(PUBLISHED, 0, update, 10_000)[0] for update in range(9_860))
    assert set(drawn) == set(SIDES)
    # Shares of 3/13 and 1/13, within five standard deviations.
    for side, count in drawn.items():
        share = SIDES.count(side) / len(SIDES)
        assert abs(count - 9_860 * share) < 5 * (9_860 * share * (1 - share)) ** 0.5


def test_outside_of_its_phase_there_is_one_size():
    config = DataConfig(scales=PUBLISHED.scales, scale_phase=PhaseConfig(0.2, 0.8))
    sizes = [canvas_at(config, 0, update, 100) for update in range(100)]
    assert set(sizes[:20]) == set(sizes[80:]) == {(640, 640)}
    assert len(set(sizes[20:80])) > 5


def test_the_draw_depends_on_seed_and_update():
    one = [canvas_at(PUBLISHED, 0, update, 1000) for update in range(50)]
    assert one == [canvas_at(PUBLISHED, 0, update, 1000) for update in range(50)]
    assert one != [canvas_at(PUBLISHED, 1, update, 1000) for update in range(50)]


def test_without_scales_there_is_one_canvas():
    config = DataConfig(size=(192, 256))
    assert variants_of(config) == ((192, 256),)
    assert canvas_at(config, 0, 5, 10) == (192, 256)


def test_phases_that_touch_share_no_update_and_leave_none_out():
    for total in (7, 60, 997):
        for cut in (4 / 60, 0.3, 0.986):
            first, second = PhaseConfig(0, cut), PhaseConfig(cut, 1)
            for update in range(total):
                assert inside(first, update, total) != inside(second, update, total)
    assert not inside(PhaseConfig(0, 0), 0, 10)
