"""Pixels lie where they are wanted, and depend on seed and position alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.config import RaysConfig
from hand_object.data.frames import mask_boxes
from hand_object.render.pixels import box_counts, draw_pixels
from training.errors import ConfigError


def test_shares_of_object_hands_and_picture():
    config = RaysConfig(per_frame=100)
    assert box_counts(config, 2, True) == (45, 45)
    assert box_counts(config, 3, True) == (45, 22, 22)
    assert box_counts(config, 1, False) == (45,)
    with pytest.raises(ConfigError, match="more than 1 together"):
        RaysConfig(on_object=0.7, on_hands=0.5)


def test_pixels_fill_their_boxes_and_stay_inside(new_key):
    boxes = jnp.array([[2, 3, 6, 5], [10, 0, 11, 1]], jnp.int32)
    pixels = np.asarray(draw_pixels(new_key(), boxes, (400, 50), 900, (20, 30)))
    first = pixels[:400]
    assert {tuple(p) for p in first} == {(x, y) for x in range(2, 6) for y in range(3, 5)}
    assert (pixels[400:450] == [10, 0]).all()
    rest = pixels[450:]
    assert rest.min() == 0 and rest[:, 0].max() == 29 and rest[:, 1].max() == 19


def test_boxes_are_around_the_mask_and_whole_where_there_is_none():
    masks = np.zeros((2, 20, 40), np.uint8)
    masks[0, 5:8, 10:12] = 1
    np.testing.assert_array_equal(mask_boxes(masks, 1), [[8, 3, 14, 10], [0, 0, 40, 20]])


def test_the_same_key_gives_the_same_pixels(new_key):
    key, boxes = new_key(), jnp.array([[0, 0, 30, 20]], jnp.int32)
    one, same = (draw_pixels(key, boxes, (5,), 9, (20, 30)) for _ in range(2))
    other = draw_pixels(jax.random.fold_in(key, 1), boxes, (5,), 9, (20, 30))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
