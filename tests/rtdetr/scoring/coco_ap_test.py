"""COCO's metrics: those of the reference, and what happens at the edges."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rtdetr.scoring.coco_ap import score
from rtdetr.scoring.matches import average_precisions
from tests.rtdetr.scoring.sample import found_of, golden, objects_of, random_sample

BOX = [10, 10, 20, 20]


def test_the_twelve_numbers_and_the_classes_are_those_of_the_reference(data_root):
    found, objects, categories, _ = golden(data_root)
    stats = json.loads((data_root / "detector/reference/coco_eval_stats.json").read_text())
    result = score(found, objects, len(categories))
    assert result.metrics == pytest.approx(stats["stats"], abs=1e-6)
    wanted = [stats["per_category_AP"][str(category)] for category in categories]
    wanted = [np.nan if value is None else value for value in wanted]
    np.testing.assert_allclose(result.ap, wanted, atol=1e-6)


def test_nothing_is_printed(capsys):
    score([found_of([BOX], [0], [0.5])], [objects_of([BOX], [0])], 1)
    assert capsys.readouterr() == ("", "")


def test_perfect_detections_score_one_and_none_score_zero():
    objects = [objects_of([BOX, [50, 50, 40, 40]], [0, 1]), objects_of([], [])]
    perfect = [found_of([BOX, [50, 50, 40, 40]], [0, 1], [0.9, 0.8]), found_of([], [], [])]
    assert score(perfect, objects, 2).metrics["AP"] == pytest.approx(1.0)
    nothing = [found_of([], [], []), found_of([], [], [])]
    metrics = score(nothing, objects, 2).metrics
    assert metrics["AP"] == 0 and metrics["AR100"] == 0


def test_a_split_without_objects_has_no_average_precision():
    result = score([found_of([BOX], [0], [0.9])], [objects_of([], [])], 3)
    assert result.metrics == {}
    assert np.isnan(result.ap).all()


def test_a_class_without_objects_does_not_enter_the_mean():
    found = [found_of([BOX, BOX], [0, 1], [0.9, 0.95])]
    result = score(found, [objects_of([BOX], [0])], 2)
    assert result.metrics["AP"] == pytest.approx(1.0)
    assert np.isnan(result.ap[1]) and np.isnan(result.ap50[1]) and np.isnan(result.ar[1])
    assert "AP_large" not in result.metrics  # nothing large was there


def test_detections_inside_of_a_crowd_of_their_class_are_neither_right_nor_wrong():
    objects = [objects_of([BOX, [40, 40, 50, 50]], [0, 0], [False, True])]
    boxes = [BOX, [45, 45, 10, 10], [60, 60, 20, 20]]
    right = score([found_of(boxes, [0, 0, 0], [0.5, 0.9, 0.8])], objects, 2)
    assert right.metrics["AP"] == pytest.approx(1.0)
    assert right.matches[0].ignored.sum(axis=1).tolist() == [2] * 10
    # Of another class they are wrong, but that class has no object.
    other = score([found_of(boxes, [0, 1, 1], [0.5, 0.9, 0.8])], objects, 2)
    assert not other.matches[1].ignored.any()


def test_only_crowds_are_no_objects():
    objects = [objects_of([[0, 0, 80, 80]], [0], [True])]
    assert score([found_of([BOX], [0], [0.9])], objects, 1).metrics == {}


def test_objects_beyond_the_number_of_detections_cannot_be_found():
    boxes = [[x, y, 4, 4] for x in range(0, 60, 5) for y in range(0, 60, 5)]  # 144
    objects = [objects_of(boxes, [0] * 144)]
    found = [found_of(boxes, [0] * 144, np.linspace(1, 0.5, 144))]
    cut = score(found, objects, 1).metrics
    assert cut["AR100"] == pytest.approx(100 / 144)
    whole = score(found, objects, 1, max_detections=300).metrics
    assert whole["AR300"] == pytest.approx(1.0) and whole["AP"] == pytest.approx(1.0)
    assert "AR100" not in whole


def test_small_limits_are_named_once():
    objects = [objects_of([BOX], [0])]
    metrics = score([found_of([BOX], [0], [0.9])], objects, 1, max_detections=5).metrics
    assert metrics["AR1"] == metrics["AR5"] == pytest.approx(1.0) and "AR10" not in metrics


@pytest.mark.parametrize("seed", range(4))
def test_precision_from_the_matches_is_that_of_pycocotools(seed):
    found, objects = random_sample(seed, 30, 3)
    result = score(found, objects, 3)
    once = np.ones(30, int)
    mine = np.stack([average_precisions(one, once) for one in result.matches])
    np.testing.assert_allclose(mine.mean(axis=1), result.ap, atol=1e-12)
    np.testing.assert_allclose(mine[:, 0], result.ap50, atol=1e-12)


def test_the_order_of_detections_of_an_image_does_not_matter():
    found, objects = random_sample(1, 20, 3)
    draw = np.random.default_rng(0)
    # Different scores: at a tie the order decides.
    scored = [found_of(f.boxes.widths().values, f.labels, draw.random(len(f))) for f in found]
    shuffled = [one[draw.permutation(len(one))] for one in scored]
    assert score(shuffled, objects, 3).metrics == score(scored, objects, 3).metrics
