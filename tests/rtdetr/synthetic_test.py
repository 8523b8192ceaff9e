"""The drawn data set: its boxes are exact, and it is what `prepare` reads."""

from __future__ import annotations

import json

import cv2
import numpy as np
from etils import epath

from rtdetr.data.preparation import PrepareSettings, prepare, read_source
from rtdetr.data.prepared import open_split
from rtdetr.synthetic import SHAPES, SOURCE_IDS, draw_image, write_dataset

SIZE = (64, 80)


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_seed_draws_the_same_files_and_another_one_others(tmp_path):
    same, again, other = (
        files(write_dataset(tmp_path / name, 3, 2, SIZE, seed))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert same == again and same.keys() == other.keys() and same != other


def test_training_and_validation_have_no_image_in_common(tmp_path):
    pixels = [p.read_bytes() for p in write_dataset(tmp_path, 4, 4, SIZE).rglob("*.png")]
    assert len(set(pixels)) == len(pixels) == 8


def test_a_box_ends_where_its_shape_ends():
    """The last shape lies on top: its color fills its box from side to side."""
    checked = 0
    for seed in range(40):
        pixels, objects = draw_image(np.random.default_rng(seed), (96, 96))
        left, top, width, height = (int(value) for value in objects[-1]["bbox"])
        # All three shapes cover the middle of their box; its color is theirs.
        color = pixels[top + height // 2, left + width // 2]
        own = (pixels == color).all(axis=-1).astype(np.uint8)
        # A single pixel of the ground may have this color by chance: only what hangs together.
        _, parts = cv2.connectedComponents(own, connectivity=8)
        rows, columns = np.nonzero(parts == parts[top + height // 2, left + width // 2])
        found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        np.testing.assert_allclose(found, (left, top, left + width, top + height), atol=1)
        checked += 1
    assert checked == 40


def test_there_is_an_empty_image_and_a_crowd_in_each_split_and_prepare_finds_no_fault(tmp_path):
    folder = write_dataset(tmp_path / "shapes", 6, 3, SIZE)
    source, splits = read_source(folder, "auto")
    settings = PrepareSettings(max_bad_fraction=0.0, workers=2)
    report = prepare(splits, source, epath.Path(tmp_path / "out"), settings, lambda _: None)
    assert report["classes"] == list(SHAPES)
    for split in ("train", "val"):
        facts = report["splits"][split]
        assert facts["crowds"] == 1 and facts["findings"]["image_without_object"]["count"] == 1
        assert set(facts["findings"]) <= {"image_without_object", "class_without_object"}
    assert open_split(tmp_path / "out", "val").classes.source_ids == SOURCE_IDS


def test_ids_are_all_different(tmp_path):
    folder = write_dataset(tmp_path, 3, 3, SIZE)
    ids = []
    for path in sorted((folder / "annotations").glob("*.json")):
        content = json.loads(path.read_text())
        ids += [row["id"] for row in content["images"]]
        own = [row["id"] for row in content["annotations"]]
        assert len(set(own)) == len(own)
    assert len(set(ids)) == 6
