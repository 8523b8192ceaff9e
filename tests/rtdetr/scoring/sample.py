"""Detections and objects to score: the golden COCO sample, and small random ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from rtdetr.boxes import xywh_px, xyxy_px
from rtdetr.data.dataset import Objects
from rtdetr.scoring.found import Found

SIZE = (100, 100)


def objects_of(boxes, labels, crowd=None, areas=None, size=SIZE) -> Objects:
    """Objects by left, top, width, height."""
    values = np.array(boxes, np.float32).reshape(-1, 4)
    return Objects(
        boxes=xywh_px(values, np.array(size)),
        labels=np.array(labels, np.int32),
        crowd=np.array([False] * len(values) if crowd is None else crowd, bool),
        areas=values[:, 2] * values[:, 3] if areas is None else np.array(areas, np.float32),
        ids=np.arange(len(values), dtype=np.int64),
    )


def found_of(boxes, labels, scores, size=SIZE) -> Found:
    """Detections by left, top, width, height."""
    values = np.array(boxes, np.float64).reshape(-1, 4)
    corners = np.concatenate([values[:, :2], values[:, :2] + values[:, 2:]], axis=1)
    return Found(xyxy_px(corners, np.array(size)), np.array(labels, int), np.array(scores, float))


def golden(data_root: Path):
    """(found, objects, ids of the categories, image ids) of the golden detections."""
    folder = data_root / "detector"
    text = (folder / "tiny_coco" / "annotations" / "instances_val2017.json").read_text()
    truth = json.loads(text)
    answers = json.loads((folder / "reference" / "coco_eval_detections.json").read_text())
    categories = sorted(category["id"] for category in truth["categories"])
    images = sorted(image["id"] for image in truth["images"])

    def rows(table, image):
        return [row for row in table if row["image_id"] == image]

    def labels(table):
        return [categories.index(row["category_id"]) for row in table]

    found, objects = [], []
    for image in images:
        own, wanted = rows(answers, image), rows(truth["annotations"], image)
        scores = [row["score"] for row in own]
        found.append(found_of([row["bbox"] for row in own], labels(own), scores))
        crowd, areas = ([row[key] for row in wanted] for key in ("iscrowd", "area"))
        boxes = [row["bbox"] for row in wanted]
        objects.append(objects_of(boxes, labels(wanted), crowd, areas))
    return found, objects, categories, images


def random_sample(seed: int, images: int, classes: int):
    """Objects, and detections around most of them, with scores on a coarse grid (ties)."""
    draw = np.random.default_rng(seed)
    found, objects = [], []
    for _ in range(images):
        count = int(draw.integers(0, 6))
        boxes = np.concatenate(
            [draw.uniform(0, 60, (count, 2)), draw.uniform(5, 40, (count, 2))], axis=1
        )
        labels = draw.integers(0, classes, count)
        objects.append(objects_of(boxes, labels, draw.random(count) < 0.1))
        moved = np.repeat(boxes, 2, axis=0) + draw.normal(0, 2, (2 * count, 4)) * [1, 1, 0.5, 0.5]
        moved[:, 2:] = np.maximum(moved[:, 2:], 1)
        guesses = np.where(draw.random(2 * count) < 0.8, np.repeat(labels, 2), 0)
        found.append(found_of(moved, guesses, np.round(draw.random(2 * count), 1)))
    return found, objects
