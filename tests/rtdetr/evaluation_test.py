"""Evaluation: equal on any mesh, of average and raw weights, with tables and pictures."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from rtdetr import inference
from rtdetr.data.dataset import ClassTable
from rtdetr.data.geometry import placement
from rtdetr.evaluation import dataset_of, evaluate
from rtdetr.scoring.charts import confusion_picture
from tests.rtdetr import color_detector
from tests.rtdetr.color_detector import config_of, layout_of, source_of, state_of
from tests.rtdetr.data.memory_dataset import COLORS, Entry, MemoryDataset, blocks, png
from training.source import FirstExamples


@pytest.fixture(autouse=True)
def fake_network(monkeypatch):
    monkeypatch.setattr(inference, "detect", color_detector.detect)


def evaluated(config=None, dataset=None, state=None, devices=1, examples=None):
    config, dataset = config or config_of(), dataset or blocks(9)
    source = source_of(dataset, config)
    if examples:
        source = FirstExamples(source, examples)
    layout = layout_of(devices)
    with jax.set_mesh(layout.mesh):
        return evaluate(config, dataset.classes, state or state_of(), source, layout)


@pytest.fixture(scope="module")
def plain():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "detect", color_detector.detect)
        return evaluated()


def one_of_each_color(count=5):
    """Pictures in which the stand-in finds everything: no color comes up twice."""
    entries = []
    for i in range(count):
        pixels = np.full((70 + i, 100, 3), 120, np.uint8)
        boxes = [(4 + i, 5, 20, 30), (36, 10, 25, 25 + i), (70, 20, 24, 40)]
        for color, (x, y, w, h) in zip(COLORS, boxes):
            pixels[y : y + h, x : x + w] = color
        entries.append(Entry(png(pixels), (70 + i, 100), boxes, (0, 1, 2)))
    return MemoryDataset(entries)


def test_the_metrics_carry_the_names_of_the_field(plain):
    names = {"AP", "AP50", "AP75", "AP_small", "AR1", "AR10", "AR100", "AR_small"}
    names |= {"AP_low", "AP_high", "F1", "precision", "recall", "threshold"}
    names |= {"matched_iou", "nonfinite_detections", "AP_raw", "AP50_raw", "matched_iou_raw"}
    assert names <= plain.metrics.keys()
    assert all(np.isfinite(list(plain.metrics.values())))
    assert plain.metrics["AP_low"] <= plain.metrics["AP"] <= plain.metrics["AP_high"]


@pytest.mark.parametrize("resize", ["letterbox", "squash"])
def test_what_is_found_everywhere_scores_one(resize):
    metrics = evaluated(config_of(resize), one_of_each_color()).metrics
    assert metrics["AP50"] == pytest.approx(1.0) and metrics["F1"] == pytest.approx(1.0)
    assert metrics["AP"] > 0.8  # extents on a resized picture are off by part of a pixel
    assert metrics["matched_iou"] > 0.9


def test_eight_devices_and_a_last_batch_that_is_not_full_score_the_same(plain):
    assert evaluated(devices=8).metrics == pytest.approx(plain.metrics, abs=1e-6)


def test_the_average_is_scored_and_the_last_weights_beside_it():
    result = evaluated(dataset=one_of_each_color(), state=state_of(0.5, average=0.0)).metrics
    assert result["AP50"] == pytest.approx(1.0) and result["AP50_raw"] < 0.5
    alone = evaluated(config_of(raw=False), one_of_each_color(), state_of(0.5, average=0.0))
    assert not [name for name in alone.metrics if name.endswith("_raw")]


def test_weights_without_an_average_are_scored_once():
    result = evaluated(state=state_of(0.01)).metrics
    assert result["AP_raw"] == result["AP"]


def test_the_first_examples_of_a_source_are_scored_alone():
    dataset = one_of_each_color(5)
    few = evaluated(dataset=dataset, examples=2)
    assert few.tables["classes"].rows[0][1] == 2
    assert dataset_of(FirstExamples(source_of(dataset, config_of()), 2)) is dataset


def test_crowds_are_ignored_though_no_example_shows_them():
    (entry,) = one_of_each_color(1).entries
    entry = Entry(entry.encoded, entry.size, entry.boxes, entry.labels, (False, False, True))
    result = evaluated(dataset=MemoryDataset([entry]))
    assert result.metrics["AP50"] == pytest.approx(1.0)
    assert result.tables["classes"].rows[2][2] == "no objects"


def test_a_split_without_objects_is_evaluated_without_precision():
    dataset = MemoryDataset([Entry(png(np.full((60, 80, 3), 120, np.uint8)), (60, 80))])
    result = evaluated(dataset=dataset)
    assert not {"AP", "AP50", "F1", "matched_iou"} & result.metrics.keys()
    assert result.tables["classes"].rows[0][2] == "no objects"


def test_tables_can_be_written(plain):
    assert set(plain.tables) == {"classes", "confidence", "confusion", "worst_images"}
    for table in plain.tables.values():
        assert all(len(row) == len(table.columns) for row in table.rows)
        json.dumps(table.rows, allow_nan=False)


def test_pictures_show_the_worst_images_and_the_curves(plain):
    assert {"confidence", "confusion", "worst_0", "worst_1"} == set(plain.images)
    for picture in plain.images.values():
        assert picture.dtype == np.uint8 and picture.shape[2] == 3


def test_numbers_that_are_none_are_counted_and_left_out():
    result = evaluated(state=state_of(float("nan")))
    assert result.metrics["nonfinite_detections"] == 9 * 9
    assert result.metrics["AP"] == 0


def test_many_classes_are_listed_by_their_confusions():
    dataset = blocks(4)
    names = tuple(f"class {i}" for i in range(41))
    dataset = MemoryDataset(dataset.entries, ClassTable(names, tuple(range(41))))
    result = evaluated(dataset=dataset)
    assert "confusion" not in result.images
    assert result.tables["confusion"].columns == ("there", "said", "times")
    assert confusion_picture(np.eye(41, dtype=int), names).shape[0] > 41 * 30


@pytest.mark.parametrize("resize", ["letterbox", "squash"])
def test_boxes_come_back_to_the_pixels_they_came_from(resize):
    objects = one_of_each_color(1).objects(0)
    place = placement((70, 100), color_detector.CANVAS, resize)
    values = place.to_canvas(objects.boxes).values[None]
    rows = {"scores": np.ones((1, 3)), "labels": np.zeros((1, 3), int), "boxes": values}
    (found,), _ = inference.in_image_pixels(rows, [(70, 100)], color_detector.CANVAS, resize)
    np.testing.assert_allclose(found.boxes.widths().values, objects.boxes.values, atol=1e-3)
