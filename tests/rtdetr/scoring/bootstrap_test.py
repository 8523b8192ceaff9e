"""The interval of the average precision over images."""

from __future__ import annotations

import numpy as np
import pytest

from rtdetr.scoring.bootstrap import interval, resampled_ap
from rtdetr.scoring.coco_ap import score
from rtdetr.scoring.matches import average_precisions
from tests.rtdetr.scoring.sample import found_of, objects_of, random_sample


@pytest.mark.parametrize("seed", range(3))
def test_a_weight_is_the_same_as_an_image_that_comes_up_so_often(seed):
    found, objects = random_sample(seed, 12, 2)
    draw = np.random.default_rng(seed)
    # Different scores: copies of an image tie with each other only.
    found = [found_of(f.boxes.widths().values, f.labels, draw.random(len(f))) for f in found]
    weight = draw.integers(0, 2, 12)
    chosen = np.repeat(np.arange(12), weight)
    again = score([found[i] for i in chosen], [objects[i] for i in chosen], 2)
    once = score(found, objects, 2)
    mine = [average_precisions(one, weight).mean() for one in once.matches]
    np.testing.assert_allclose(mine, again.ap, atol=1e-12)


def test_copies_of_an_image_count_as_often():
    found, objects = random_sample(5, 12, 2)
    once = score(found, objects, 2)
    twice = [average_precisions(one, np.full(12, 2)) for one in once.matches]
    single = [average_precisions(one, np.ones(12, int)) for one in once.matches]
    np.testing.assert_allclose(twice, single, atol=1e-12)


def test_the_interval_holds_the_average_precision_and_narrows_with_more_images():
    def width(images):
        found, objects = random_sample(2, images, 2)
        result = score(found, objects, 2)
        low, high = interval(result.matches, images, 60)
        assert low < result.metrics["AP"] < high
        return high - low

    assert width(240) < 0.7 * width(24)


def test_the_same_images_give_the_same_interval():
    found, objects = random_sample(2, 20, 2)
    matches = score(found, objects, 2).matches
    assert interval(matches, 20, 30) == interval(matches, 20, 30)
    assert len(resampled_ap(matches, 20, 30)) == 30


def test_without_objects_there_is_no_interval():
    matches = score([found_of([[1, 1, 5, 5]], [0], [0.5])], [objects_of([], [])], 1).matches
    assert interval(matches, 1, 10) is None


def test_a_resample_without_objects_is_left_out():
    objects = [objects_of([[1, 1, 9, 9]], [0]), objects_of([], [])]
    found = [found_of([[1, 1, 9, 9]], [0], [0.9]), found_of([], [], [])]
    drawn = resampled_ap(score(found, objects, 1).matches, 2, 50)
    assert np.isnan(drawn).any()
    assert interval(score(found, objects, 1).matches, 2, 50) == (1.0, 1.0)
