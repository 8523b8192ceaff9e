"""Precision, recall and F1 against the score."""

from __future__ import annotations

import numpy as np
import pytest

from rtdetr.scoring.coco_ap import score
from rtdetr.scoring.confidence import THRESHOLDS, best_place, by_confidence
from tests.rtdetr.scoring.sample import found_of, objects_of, random_sample

BOX, FAR = [10, 10, 20, 20], [60, 60, 20, 20]


def at(threshold):
    return int(np.argmin(np.abs(THRESHOLDS - threshold)))


def test_a_case_that_is_counted_by_hand():
    # Right at 0.9, false at 0.7, right at 0.4; one object of three is never found.
    found = [found_of([BOX, [0, 70, 9, 9], FAR], [0, 0, 0], [0.905, 0.705, 0.405])]
    objects = [objects_of([BOX, FAR, [90, 0, 9, 9]], [0, 0, 0])]
    curves = by_confidence(score(found, objects, 1).matches)
    for threshold, precision, recall in [(0.95, 1, 0), (0.8, 1, 1 / 3), (0.5, 1 / 2, 1 / 3)]:
        assert curves.precision[0, at(threshold)] == pytest.approx(precision)
        assert curves.recall[0, at(threshold)] == pytest.approx(recall)
    assert curves.f1[0, at(0.1)] == pytest.approx(2 * 2 / (3 + 3))
    assert curves.best < at(0.4)


def test_f1_is_the_harmonic_mean_of_the_other_two():
    found, objects = random_sample(3, 40, 3)
    curves = by_confidence(score(found, objects, 3).matches)
    p, r = curves.precision, curves.recall
    wanted = np.where(p + r > 0, 2 * p * r / np.maximum(p + r, 1e-300), 0)
    np.testing.assert_allclose(curves.f1, wanted, atol=1e-12)
    assert np.all(np.diff(curves.recall, axis=1) <= 0)


def test_a_score_at_the_threshold_is_kept():
    matches = score([found_of([BOX], [0], [0.5])], [objects_of([BOX], [0])], 1).matches
    recall = by_confidence(matches).recall[0]
    assert recall[at(0.5)] == 1 and recall[at(0.51)] == 0


def test_classes_without_objects_do_not_pull_the_mean():
    found = [found_of([BOX, FAR], [0, 1], [0.9, 0.9])]
    curves = by_confidence(score(found, [objects_of([BOX], [0])], 2).matches)
    assert curves.defined.tolist() == [True, False]
    assert curves.mean(curves.f1)[at(0.5)] == 1


def test_without_any_object_the_means_are_zero():
    found = [found_of([BOX], [0], [0.9])]
    curves = by_confidence(score(found, [objects_of([], [])], 1).matches)
    assert not curves.defined.any() and not curves.mean(curves.f1).any()


def test_the_best_threshold_lies_in_the_middle_of_equal_ones():
    f1 = np.array([0.2, 0.9, 0.9, 0.9, 0.1])
    assert best_place(f1) == 2


def test_detections_inside_of_crowds_do_not_lower_the_precision():
    objects = [objects_of([BOX, [40, 40, 50, 50]], [0, 0], [False, True])]
    found = [found_of([BOX, [45, 45, 10, 10]], [0, 0], [0.9, 0.9])]
    curves = by_confidence(score(found, objects, 1).matches)
    assert curves.precision[0, at(0.5)] == 1 and curves.recall[0, at(0.5)] == 1
