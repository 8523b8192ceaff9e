"""Boxes, labels and comparisons are drawn where they belong, on pictures of any size."""

from __future__ import annotations

import numpy as np
import pytest

from rtdetr.boxes import xyxy_px
from rtdetr.drawing import PANEL, captions, color_of, compared, drawn, resized


def canvas(height=200, width=300):
    return np.zeros((height, width, 3), np.uint8)


def boxes_of(*corners, size=(200, 300)):
    return xyxy_px(np.array(corners, float).reshape(-1, 4), np.array(size))


def test_the_border_lies_on_the_edges_of_the_box_in_the_color_of_its_class():
    picture = drawn(canvas(), boxes_of([50, 60, 120, 150]), np.array([4]), [""])
    color = color_of(4)
    for x, y in [(50, 100), (119, 100), (80, 60), (80, 149)]:
        assert tuple(picture[y, x]) == color
    for x, y in [(49, 100), (120, 100), (80, 150), (80, 100)]:
        assert not picture[y, x].any()


def test_the_photograph_itself_is_not_changed():
    pixels = canvas()
    drawn(pixels, boxes_of([50, 60, 120, 150]), np.array([0]), ["cat 90"])
    assert not pixels.any()


def test_the_first_detection_is_drawn_on_top():
    both = boxes_of([50, 60, 120, 150], [50, 60, 120, 150])
    picture = drawn(canvas(), both, np.array([1, 2]), ["", ""])
    assert tuple(picture[100, 50]) == color_of(1)


@pytest.mark.parametrize("size", [(8, 8), (40, 30), (1080, 1920)])
def test_labels_stay_inside_and_letters_grow_with_the_picture(size):
    height, width = size
    corner = [width - 3, 0, width, 3]
    picture = drawn(
        canvas(*size), boxes_of(corner, size=size), np.array([0]), ["a long class name 99"]
    )
    assert picture.shape == (*size, 3)
    colored = np.argwhere((picture == color_of(0)).all(axis=-1))
    assert len(colored) > 0
    if min(size) > 100:  # as high as the letters: 1920 / 45 px and a little
        assert 30 < np.ptp(colored[:, 0]) < 80


def test_nothing_and_boxes_without_an_area_are_drawn_without_an_error():
    assert not drawn(canvas(), boxes_of(), np.zeros(0, int), []).any()
    assert drawn(canvas(), boxes_of([50, 50, 50, 50]), np.array([0]), ["x"]).any()


def test_captions_say_class_score_and_crowd():
    names = ("cat", "dog")
    labels = np.array([1, 0])
    assert captions(labels, names, np.array([0.914, 0.5])) == ["dog 91", "cat 50"]
    assert captions(labels, names, crowd=np.array([True, False])) == ["dog (crowd)", "cat"]


def test_boxes_follow_a_resized_photograph():
    picture, moved = resized(canvas(100, 200), boxes_of([20, 10, 40, 50], size=(100, 200)), 400)
    assert picture.shape == (200, 400, 3)
    np.testing.assert_allclose(moved.values, [[40, 20, 80, 100]])


def test_truth_stands_left_and_prediction_right():
    one, other = boxes_of([50, 60, 120, 150]), boxes_of()
    sheet = compared(canvas(), (one, np.array([3]), [""]), (other, np.zeros(0, int), []), "title")
    colored = np.argwhere((sheet == color_of(3)).all(axis=-1))
    assert len(colored) and colored[:, 1].max() < PANEL


def test_neighboring_classes_have_colors_far_apart():
    colors = np.array([color_of(i) for i in range(80)], int)
    assert np.abs(np.diff(colors, axis=0)).sum(axis=1).min() > 120
    assert colors.max(axis=1).min() > 180  # bright: the letters on it are black
