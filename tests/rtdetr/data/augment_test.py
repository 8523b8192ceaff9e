"""The whole chain: boxes stay with their objects, and every part can be switched off."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rtdetr.boxes import xyxy_px
from rtdetr.config import AugmentConfig
from rtdetr.data.augment import Plan, augmented, unchanged
from rtdetr.data.picture import Picture, resized
from tests.rtdetr.data.memory_dataset import painted_extent

OFF = AugmentConfig(color=0, zoom_out=0, crop=0, flip=0, vertical_flip=0, mosaic=0, mixup=0)
PLAN = Plan(canvas=(192, 256), strong=True, mixing=True)
RED, BLUE = (235, 15, 15), (15, 15, 235)


SIZE = (120, 150)


def picture(color=RED, label=1):
    """A gray picture with one object, not in the middle."""
    pixels = np.full((*SIZE, 3), 128, np.uint8)
    pixels[15:80, 25:105] = color
    box = xyxy_px(np.array([[25.0, 15, 105, 80]]), np.array(SIZE))
    return Picture(pixels, box, np.array([label], np.int32))


BLUE_ONE = picture(BLUE, label=2)


def example(config, seed, plan=PLAN, resize="squash", partner=None):
    def never(_):
        raise AssertionError("no partner was to be drawn")

    generator = np.random.default_rng(seed)
    return augmented(picture(), partner or never, plan, config, resize, generator)


@pytest.mark.parametrize("resize", ["squash", "letterbox"])
def test_with_all_chances_at_zero_it_is_the_plain_example(resize):
    plain = unchanged(picture(), PLAN.canvas, resize, fill=0)
    for seed in range(5):
        found = example(OFF, seed, resize=resize)
        assert (found.pixels == plain.pixels).all() and found.content == plain.content
        assert (found.boxes.values == plain.boxes.values).all()


def test_outside_of_their_phases_strong_changes_and_mixing_are_off():
    config = AugmentConfig(color=1, zoom_out=1, crop=1, flip=0, mosaic=1, mixup=1)
    calm = Plan(PLAN.canvas, strong=False, mixing=False)
    plain = unchanged(picture(), PLAN.canvas, "squash", fill=0)
    assert (example(config, 0, calm).pixels == plain.pixels).all()


CHANCES = {
    "zoom_out": dict(zoom_out=1.0),
    "crop": dict(crop=1.0),
    "zoom_out and crop": dict(zoom_out=1.0, crop=1.0),
    "flip": dict(flip=1.0),
    "vertical_flip": dict(vertical_flip=1.0),
    "mosaic": dict(mosaic=1.0),
    "all": dict(zoom_out=0.5, crop=0.8, flip=0.5, vertical_flip=0.5, mosaic=0.5),
}


@pytest.mark.parametrize("resize", ["squash", "letterbox"])
@pytest.mark.parametrize("name", CHANCES)
def test_the_box_is_where_the_object_is(name, resize):
    config = dataclasses.replace(OFF, **CHANCES[name])
    changed = 0
    plain = unchanged(picture(), PLAN.canvas, resize, fill=0).pixels
    for seed in range(25):
        found = example(config, seed, PLAN, resize, partner=lambda _: BLUE_ONE)
        changed += bool((found.pixels != plain).any())
        mine = found.labels == 1
        extent = painted_extent(found.pixels, RED)
        if not mine.any():  # turned or moved out of the picture, or cropped to less than a px
            assert np.prod(extent[2:] - extent[:2]) <= 4 * max(PLAN.canvas)
            continue
        box = found.boxes[mine].pixels(np.array(PLAN.canvas)).values[0]
        # Where an image is enlarged n times, its edges blur over n px.
        assert np.abs(extent - box).max() <= 3.5, (seed, extent, box)
        rows, columns = found.content
        assert (box >= -1e-9).all() and box[2] <= columns + 1e-9 and box[3] <= rows + 1e-9
        assert not found.pixels[rows:].any() and not found.pixels[:, columns:].any()
    assert changed >= 15


def test_color_changes_pixels_and_no_box():
    plain = unchanged(picture(), PLAN.canvas, "squash", fill=0)
    found = [example(dataclasses.replace(OFF, color=1.0), seed) for seed in range(8)]
    assert all((one.boxes.values == plain.boxes.values).all() for one in found)
    assert len({one.pixels.tobytes() for one in found}) == 8


def test_the_surrounding_of_a_zoom_keeps_its_fill_whatever_the_color():
    config = dataclasses.replace(OFF, zoom_out=1.0, color=1.0, fill=114)
    for seed in range(6):
        found = example(config, seed)
        assert (found.pixels == 114).all(axis=-1).mean() > 0.01


def test_flips_are_as_frequent_as_asked():
    plain = unchanged(picture(), PLAN.canvas, "squash", fill=0).pixels
    for name, axis in (("flip", 1), ("vertical_flip", 0)):
        config = dataclasses.replace(OFF, **{name: 0.3})
        other = np.flip(plain, axis)
        count = sum((example(config, seed).pixels == other).all() for seed in range(200))
        assert 35 <= count <= 90, name


def test_a_mosaic_is_not_zoomed_or_cropped():
    mosaics = dataclasses.replace(OFF, mosaic=1.0)
    zoomed = dataclasses.replace(mosaics, zoom_out=1.0, crop=1.0)
    for seed in range(5):
        one, other = (
            example(config, seed, partner=lambda _: BLUE_ONE) for config in (mosaics, zoomed)
        )
        assert (one.pixels == other.pixels).all()


@pytest.mark.parametrize(
    ("chances", "expected"), [(dict(mixup=1.0), 1), (dict(mosaic=1.0), 3), (dict(), 0)]
)
def test_mixup_takes_one_more_picture_and_mosaic_three_more(chances, expected):
    drawn = []
    example(dataclasses.replace(OFF, **chances), 0, partner=lambda _: drawn.append(1) or BLUE_ONE)
    assert len(drawn) == expected


def test_mixup_shows_both():
    found = example(dataclasses.replace(OFF, mixup=1.0), 0, partner=lambda _: BLUE_ONE)
    assert found.labels.tolist() == [1, 2]
    assert 100 < found.pixels[76, 111, 0] < 150 and 100 < found.pixels[76, 111, 2] < 150


def test_slivers_are_left_out():
    thin = xyxy_px(np.array([[10.0, 10, 10.4, 100], [10, 10, 60, 60]]), np.array([120, 150]))
    slim = Picture(picture().pixels, thin, np.array([0, 1], np.int32))
    found = unchanged(slim, PLAN.canvas, "squash", fill=0)
    assert found.labels.tolist() == [1] and len(found.boxes) == 1


def test_shrinking_does_not_alias_and_growing_agrees_with_pillow():
    from PIL import Image

    # One px wide stripes are gray from afar; sampled without antialiasing they are stripes.
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resized(stripes, (60, 60)).astype(int)
    assert np.abs(small[:, 2:-2] - 127.5).max() < 20
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    for height, width in ((111, 97), (50, 300), (20, 30), (20, 300)):
        size = height, width
        theirs = Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR)
        assert np.abs(resized(noise, size).astype(int) - np.asarray(theirs)).max() <= 1
