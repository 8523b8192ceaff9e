"""Pairs, confusions and the worst images, by cases that are counted by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rtdetr.scoring.confusion import confusion, most_confused
from rtdetr.scoring.found import nothing, overlap
from rtdetr.scoring.pairing import LEAST, pair
from rtdetr.scoring.worst import worst_images
from tests.rtdetr.scoring.sample import SIZE, found_of, objects_of, random_sample

BOX, FAR = [10, 10, 20, 20], [60, 60, 20, 20]
NEAR = [12, 10, 20, 20]  # IoU with BOX 18 / 22


def test_overlap_is_that_of_areas():
    a, b = np.array([[0, 0, 10, 10], [0, 0, 0, 0]]), np.array([[5, 0, 15, 10], [0, 0, 100, 100]])
    np.testing.assert_allclose(overlap(a, b), [[50 / 150, 100 / 10_000], [0, 0]])
    crowds = overlap(a, b, np.array([False, True]))
    np.testing.assert_allclose(crowds, [[50 / 150, 1.0], [0, 0]])


def test_the_own_class_comes_before_greater_overlap():
    found = found_of([BOX, NEAR], [1, 0], [0.9, 0.3])
    pairs = pair(found, objects_of([BOX], [0]))
    assert pairs.object.tolist() == [-1, 0] and pairs.false.tolist() == [0]


def test_among_one_class_the_greater_overlap_wins():
    found = found_of([NEAR, BOX], [0, 0], [0.9, 0.3])
    pairs = pair(found, objects_of([BOX], [0]))
    assert pairs.object.tolist() == [-1, 0]


def test_detections_inside_of_crowds_are_excused_of_their_class_only():
    objects = objects_of([[0, 0, 90, 90]], [0], [True])
    pairs = pair(found_of([BOX, FAR], [0, 1], [0.9, 0.9]), objects)
    assert pairs.excused.tolist() == [True, False] and pairs.false.tolist() == [1]
    assert pairs.missed.tolist() == []


@pytest.mark.parametrize("seed", range(5))
def test_pairs_are_exclusive_and_near_and_none_is_left(seed):
    for found, objects in zip(*random_sample(seed, 10, 2)):
        pairs = pair(found, objects)
        used = pairs.object[pairs.object >= 0]
        assert len(set(used.tolist())) == len(used)
        assert not objects.crowd[used].any()
        shared = overlap(found.boxes.values, objects.boxes.corners().values)
        for detection, place in itertools.product(range(len(found)), range(len(objects.labels))):
            paired = pairs.object[detection] == place
            assert not paired or shared[detection, place] >= LEAST
            left = pairs.object[detection] < 0 and place in pairs.missed
            assert not (left and shared[detection, place] >= LEAST)


def test_every_object_is_in_its_row_and_every_detection_in_its_column():
    found = [found_of([BOX, FAR, [0, 80, 9, 9]], [1, 1, 0], [0.9, 0.8, 0.7])]
    objects = [objects_of([BOX, FAR, [80, 0, 9, 9]], [0, 1, 1])]
    matrix = confusion(found, objects, 2, 0.5)
    assert matrix.tolist() == [[0, 1, 0], [0, 1, 1], [1, 0, 0]]
    assert most_confused(matrix, 5) == [(0, 1, 1), (1, 2, 1), (2, 0, 1)]
    # A higher threshold: what was said becomes missing.
    assert confusion(found, objects, 2, 0.85).tolist() == [[0, 1, 0], [0, 0, 2], [0, 0, 0]]


def test_the_worst_image_comes_first_and_flawless_ones_never():
    objects = [objects_of([BOX], [0])] * 4
    found = [
        found_of([BOX], [0], [0.9]),
        found_of([BOX, FAR], [0, 0], [0.9, 0.6]),
        found_of([BOX], [1], [0.9]),
        nothing(SIZE),
    ]
    worst = worst_images(found, objects, 0.5, 10)
    assert [one.image for one in worst] == [2, 3, 1]
    assert worst[0].sentence == "0 missed, 1 mistaken, 0 false"
    assert worst[1].sentence == "1 missed, 0 mistaken, 0 false"
    assert (worst[2].false, worst[2].badness) == (1, pytest.approx(0.6))
    assert len(worst_images(found, objects, 0.5, 1)) == 1
