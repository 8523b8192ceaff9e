"""Anchors lie where the reference has them; the best tokens become queries."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from rtdetr.config import STRIDES, DecoderConfig
from rtdetr.model.query_selection import anchors, pick, select

CONFIG = DecoderConfig()


def maps_of(height, width):
    return [(height // stride, width // stride) for stride in STRIDES]


@pytest.mark.parametrize(
    "canvas, missing", [((640, 640), (316, 0, 0)), ((1088, 1920), (1016, 372, 68))]
)
def test_as_many_cells_are_without_an_anchor_as_in_the_reference(canvas, missing):
    sizes = maps_of(*canvas)
    _, valid = anchors(sizes, CONFIG)
    cuts = np.cumsum([height * width for height, width in sizes])[:-1]
    assert tuple(int((~part).sum()) for part in np.split(valid, cuts)) == missing


def test_anchors_are_centered_on_their_cells_row_by_row_and_double_with_each_map():
    sizes = maps_of(64, 96)
    boxes, _ = anchors(sizes, CONFIG)
    start = 0
    for level, (height, width) in enumerate(sizes):
        for row, column in np.ndindex(height, width):
            side = 0.05 * 2**level
            wanted = [(column + 0.5) / width, (row + 0.5) / height, side, side]
            np.testing.assert_allclose(boxes[start + row * width + column], wanted, rtol=1e-6)
        start += height * width


def test_square_anchors_have_equal_sides_in_px_and_the_same_area():
    sizes = maps_of(1088, 1920)
    square = dataclasses.replace(CONFIG, anchors="square_pixels")
    boxes, plain = anchors(sizes, square)[0][:, 2:], anchors(sizes, CONFIG)[0][:, 2:]
    np.testing.assert_allclose(boxes[:, 0] * 1920, boxes[:, 1] * 1088, rtol=1e-5)
    np.testing.assert_allclose(boxes.prod(-1), plain.prod(-1), rtol=1e-5)


def test_the_best_tokens_are_selected_best_first_each_with_its_own_row():
    scores = jnp.asarray([[0.1, 3.0, -jnp.inf, 2.0], [5.0, 1.0, 2.0, 3.0]])
    index = select(scores, 2)
    np.testing.assert_array_equal(index, [[1, 3], [0, 3]])
    rows = jnp.arange(16.0).reshape(2, 4, 2)
    np.testing.assert_array_equal(pick(rows, index)[1], [[8, 9], [14, 15]])
