"""How images lie on canvases: boxes come back, and move with the pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdetr.boxes import BoxFormatError, cxcywh_norm, xywh_px, xyxy_px
from rtdetr.data.geometry import Window, placement, whole
from rtdetr.data.picture import painted
from tests.rtdetr.data.memory_dataset import painted_extent

RESIZES = ("squash", "letterbox")
sides = st.integers(1, 3000)
sizes = st.tuples(sides, sides)
canvases = st.tuples(*[st.integers(1, 60).map(lambda n: 32 * n)] * 2)
resizes = st.sampled_from(RESIZES)
fractions = st.lists(st.floats(0, 1), min_size=4, max_size=4)


def boxes_on(size, four, dtype: type = np.float64):
    """Two boxes inside of an image from four fractions: any one, and the whole image."""
    height, width = size
    x, y = np.sort([four[0], four[1]]) * width, np.sort([four[2], four[3]]) * height
    corners = np.array([[x[0], y[0], x[1], y[1]], [0, 0, width, height]], dtype)
    return xyxy_px(corners, np.array(size))


@given(sizes, canvases, resizes, fractions, st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_boxes_on_the_canvas_come_back(size, canvas, resize, four, mirrored, upside_down):
    place = placement(size, canvas, resize, mirrored=mirrored, upside_down=upside_down)
    boxes = boxes_on(size, four)
    back = place.to_image(place.to_canvas(boxes))
    assert back.format == "xyxy_px"
    assert np.abs(back.values - boxes.values).max() <= 1e-4
    assert place.to_image(place.to_canvas(boxes.widths())).values == pytest.approx(
        back.values, abs=1e-6
    )


@given(sizes, canvases, resizes, fractions)
@settings(max_examples=100, deadline=None)
def test_boxes_in_single_precision_come_back_to_their_last_bits(size, canvas, resize, four):
    place = placement(size, canvas, resize)
    boxes = boxes_on(size, four, np.float32)
    there = place.to_canvas(boxes)
    assert there.values.dtype == np.float32
    back = place.to_image(there).values
    # A few roundings of coordinates that are as large as the image. Where a letterbox makes the
    # image smaller than the canvas, those of the canvas are larger in px of the image.
    enlarged = max(canvas[i] * size[i] / place.content[i] for i in range(2))
    assert np.abs(back - boxes.values).max() <= 8 * np.finfo(np.float32).eps * enlarged


@given(sizes, canvases, fractions)
@settings(max_examples=100, deadline=None)
def test_a_letterbox_keeps_the_aspect_and_pads_right_and_below(size, canvas, four):
    place = placement(size, canvas, "letterbox")
    scales = [place.content[i] / size[i] for i in range(2)]
    exact = min(canvas[i] / size[i] for i in range(2))
    # The content has whole px, one at least.
    for scale, side in zip(scales, size):
        assert abs(scale - exact) * side <= 1
    assert any(content == side for content, side in zip(place.content, canvas))
    moved = place.to_canvas(boxes_on(size, four)).pixels(np.array(canvas)).values
    assert moved.min() >= -1e-9
    assert (moved[:, 2:] <= np.array(place.content[::-1]) + 1e-6).all()


def test_the_published_wide_canvas_keeps_a_full_hd_image_as_it_is():
    place = placement((1080, 1920), (1088, 1920), "letterbox")
    assert place.content == (1080, 1920) and place.target == whole((1080, 1920))
    image = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    canvas = painted(image, place, fill=7)
    assert (canvas[:1080] == image).all() and (canvas[1080:] == 7).all()
    box = xywh_px(np.array([[100.0, 200.0, 300.0, 400.0]]), np.array([1080, 1920]))
    expected = [[250 / 1920, 400 / 1088, 300 / 1920, 400 / 1088]]
    assert place.to_canvas(box).values == pytest.approx(np.array(expected), abs=1e-12)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("upside_down", [False, True])
@pytest.mark.parametrize(
    "window",
    [None, Window(10, 5, 70, 60), Window(-31, -17, 160, 120), Window(20, -30, 130, 50)],
)
@pytest.mark.parametrize("canvas", [(96, 160), (320, 224)])
def test_boxes_move_with_the_pixels(resize, mirrored, upside_down, window, canvas):
    image = np.full((80, 100, 3), 120, np.uint8)
    left, top, right, bottom = 24, 12, 60, 43
    image[top:bottom, left:right] = (240, 10, 10)
    place = placement((80, 100), canvas, resize, window, mirrored=mirrored, upside_down=upside_down)
    found = painted_extent(painted(image, place, fill=0), (240, 10, 10))
    box = xyxy_px(np.array([[left, top, right, bottom]], float), np.array([80, 100]))
    expected = place.to_canvas(box).pixels(np.array(canvas)).values[0]
    # Colors pass into each other over one px of the larger of image and canvas.
    blur = max(1.0, *(t / s for t, s in zip(place.target.size, place.source.size)))
    assert np.abs(found - expected).max() <= 0.5 + blur / 2


def test_a_window_beyond_the_image_is_filled():
    image = np.full((40, 60, 3), 200, np.uint8)
    place = placement((40, 60), (80, 120), "squash", Window(-30, -20, 90, 60))
    canvas = painted(image, place, fill=3)
    assert (canvas[20:60, 30:90] == 200).all()
    assert (canvas == 200).sum() == 40 * 60 * 3 and (canvas == 3).sum() == 3 * (9600 - 2400)


def test_predictions_are_clipped_to_the_image():
    place = placement((50, 80), (96, 96), "letterbox")
    boxes = cxcywh_norm(np.array([[0.5, 0.5, 2.0, 2.0], [0.5, 0.95, 0.1, 0.1]]))
    found = place.to_image(boxes).values
    assert (found[0] == (0, 0, 80, 50)).all()
    assert (found[1, [1, 3]] == 50).all()  # in the padding: nothing is left of it


def test_a_box_of_another_format_is_refused():
    place = placement((50, 80), (96, 96), "squash")
    with pytest.raises(BoxFormatError, match="cxcywh_norm"):
        place.to_canvas(cxcywh_norm(np.zeros((1, 4))))
    with pytest.raises(BoxFormatError, match="xyxy_px"):
        place.to_image(xyxy_px(np.zeros((1, 4)), np.array([50, 80])))
