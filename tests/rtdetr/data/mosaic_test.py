"""Mosaic and mixup: every object is found again where its box says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdetr.boxes import cxcywh_norm, xyxy_px
from rtdetr.data.mixup import SHARE, mixed
from rtdetr.data.mosaic import DEGREES, MOVED, SCALES, mosaic, moved_corners, random_affine, warped
from rtdetr.data.picture import Canvas, Picture
from tests.rtdetr.data.memory_dataset import painted_extent

# One color for each part.
COLORS = ((240, 20, 20), (20, 240, 20), (20, 20, 240), (240, 240, 20))


def part(number, size):
    """A gray picture with one object in the color of its number."""
    height, width = size
    pixels = np.full((height, width, 3), 128, np.uint8)
    box = np.array([[0.3 * width, 0.25 * height, 0.7 * width, 0.8 * height]]).round()
    left, top, right, bottom = box[0].astype(int)
    pixels[top:bottom, left:right] = COLORS[number]
    return Picture(pixels, xyxy_px(box, np.array(size)), np.array([number], np.int32))


SIZES = ((80, 60), (50, 90), (64, 64), (120, 70))


def parts():
    return [part(number, size) for number, size in enumerate(SIZES)]


@pytest.fixture
def still(monkeypatch):
    """No turn, move or scale."""
    monkeypatch.setattr("rtdetr.data.mosaic.DEGREES", 0.0)
    monkeypatch.setattr("rtdetr.data.mosaic.MOVED", 0.0)
    monkeypatch.setattr("rtdetr.data.mosaic.SCALES", (1.0, 1.0))


def test_each_part_lies_in_its_quarter_with_the_same_shorter_side(still):
    # Shorter sides become 120 px; quarters are 206 high and 216 wide, then 120 each on the canvas.
    whole = mosaic(parts(), (240, 240), "squash", np.random.default_rng(0), fill=9)
    assert whole.size == (240, 240) and whole.labels.tolist() == [0, 1, 2, 3]
    for number, box in enumerate(whole.boxes.values):
        found = painted_extent(whole.pixels, COLORS[number])
        assert np.abs(found - box).max() <= 1.5
        assert (box[0] >= 120) == (number % 2 == 1) and (box[1] >= 120) == (number >= 2)
    # Beside the upper right part, which is 216 × 120 of 216 × 206, and the lower right one.
    for (top, bottom), (left, right) in (((73, 119), (121, 240)), ((121, 240), (190, 240))):
        assert (whole.pixels[top:bottom, left:right] == 9).all()
    assert (whole.pixels[:66, 122:130] == 128).all()


def test_a_letterbox_keeps_the_aspect_of_the_four(still):
    whole = mosaic(parts(), (240, 480), "letterbox", np.random.default_rng(0), fill=9)
    assert whole.size == (240, round(240 / 412 * 432))
    for number, box in enumerate(whole.boxes.values):
        assert np.abs(painted_extent(whole.pixels, COLORS[number]) - box).max() <= 1.5


@pytest.mark.parametrize("seed", range(12))
def test_boxes_move_with_the_pixels(seed, monkeypatch):
    # Without a turn the box is the object's; with one it is the box around it.
    monkeypatch.setattr("rtdetr.data.mosaic.DEGREES", 0.0 if seed % 2 else 10.0)
    whole = mosaic(parts(), (200, 260), "squash", np.random.default_rng(seed), fill=0)
    assert len(whole.boxes) >= 2
    for label, box in zip(whole.labels, whole.boxes.values):
        found = painted_extent(whole.pixels, COLORS[label])
        assert np.abs(found - box).max() <= 2.5


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_maps_are_in_their_ranges_and_turn_about_the_center(seed):
    size = (300, 400)
    matrix = random_affine(size, np.random.default_rng(seed))
    scale = np.sqrt(np.linalg.det(matrix[:, :2]))
    angle = np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0]))
    move = matrix @ (200, 150, 1) - (200, 150)
    assert SCALES[0] <= scale <= SCALES[1] and abs(angle) <= DEGREES
    assert (np.abs(move) <= MOVED * np.array([400, 300])).all()
    # No shear: the columns are orthogonal and of one length.
    assert matrix[:, 0] @ matrix[:, 1] == pytest.approx(0, abs=1e-12)


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_moved_box_holds_all_moved_points_and_no_more(seed):
    generator = np.random.default_rng(seed)
    matrix = random_affine((300, 400), generator)
    box = np.array([[30.0, 40, 130, 90]])
    points = generator.uniform(box[0, :2], box[0, 2:], (200, 2)) @ matrix[:, :2].T + matrix[:, 2]
    left, top, right, bottom = moved_corners(box, matrix)[0]
    assert (points >= (left, top)).all() and (points <= (right, bottom)).all()
    angle = abs(np.arctan2(matrix[1, 0], matrix[0, 0]))
    scale = np.hypot(matrix[0, 0], matrix[1, 0])
    width = scale * (100 * np.cos(angle) + 50 * np.sin(angle))
    assert right - left == pytest.approx(width)


@pytest.mark.parametrize("scale", [1.0, 2.5, 4.0])
def test_the_map_of_pixels_and_that_of_boxes_agree_below_a_pixel(scale):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[12:20, 26:36] = 255
    box = xyxy_px(np.array([[26.0, 12, 36, 20]]), np.array([40, 60]))
    one = Picture(pixels, box, np.array([0], np.int32))
    matrix = np.array([[scale, 0, 3.3], [0, scale, 1.7]])
    found = warped(one, matrix, (200, 270), fill=0)
    weights = found.pixels[..., 0] / found.pixels.sum(dtype=float) * 3
    rows, columns = np.mgrid[:200, :270] + 0.5
    center = (weights * columns).sum(), (weights * rows).sum()
    left, top, right, bottom = found.boxes.values[0]
    # OpenCV knows 32 places between two pixels.
    assert center == pytest.approx(((left + right) / 2, (top + bottom) / 2), abs=1.5 / 32 * 2)


def test_objects_outside_are_left_out_and_others_cut(monkeypatch):
    monkeypatch.setattr("rtdetr.data.mosaic.SCALES", (4.0, 4.0))
    whole = mosaic(parts(), (128, 128), "squash", np.random.default_rng(0), fill=0)
    height, width = whole.size
    values = whole.boxes.values
    assert len(values) == len(whole.labels)
    assert (values >= 0).all() and (values <= (width, height, width, height)).all()
    assert (values[:, 2:] - values[:, :2] >= 1).all()
    monkeypatch.setattr("rtdetr.data.mosaic.SCALES", (60.0, 60.0))
    assert len(mosaic(parts(), (128, 128), "squash", np.random.default_rng(0), fill=0).boxes) < 4


def test_a_very_long_part_does_not_make_a_huge_picture(monkeypatch):
    sizes = []
    keep = lambda whole, *_: sizes.append(whole.size) or whole  # noqa: E731
    monkeypatch.setattr("rtdetr.data.mosaic.warped", keep)
    pixels, box = np.full((1, 3000, 3), 77, np.uint8), np.array([[0.0, 0, 3000, 1]])
    strip = Picture(pixels, xyxy_px(box, np.array([1, 3000])), np.array([0], np.int32))
    mosaic([strip, *parts()[1:]], (64, 64), "squash", np.random.default_rng(0), fill=0)
    assert max(sizes[0]) <= 2 * 4 * 32


def test_parts_without_objects_are_parts():
    empty = [Picture(p.pixels, p.boxes[:0], p.labels[:0]) for p in parts()]
    whole = mosaic(empty, (128, 128), "squash", np.random.default_rng(0), fill=0)
    assert whole.boxes.values.shape == (0, 4) and whole.labels.shape == (0,)


def canvas(value, content, boxes, labels):
    pixels = np.full((20, 30, 3), value, np.uint8)
    return Canvas(pixels, content, cxcywh_norm(np.array(boxes, float).reshape(-1, 4)), labels)


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_mixup_blends_evenly_and_unites_the_objects(seed):
    first = canvas(200, (20, 11), [[0.5, 0.5, 0.2, 0.2]], np.array([4], np.int32))
    second = canvas(100, (9, 30), [[0.1, 0.1, 0.1, 0.1]] * 2, np.array([5, 6], np.int32))
    blend = mixed(first, second, np.random.default_rng(seed))
    assert len(np.unique(blend.pixels)) == 1
    assert 100 + 100 * SHARE[0] - 1 <= blend.pixels[0, 0, 0] <= 100 + 100 * SHARE[1] + 1
    assert blend.labels.tolist() == [4, 5, 6] and blend.boxes.format == "cxcywh_norm"
    assert (blend.boxes.values[1:] == 0.1).all()
    assert blend.content == (20, 30)
