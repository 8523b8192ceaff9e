"""The sheet of examples shows the boxes of the batch."""

from __future__ import annotations

from rtdetr.config import DataConfig
from rtdetr.data.sheet import COLORS, PADDING, drawn, sheet
from rtdetr.data.source import DetectionSource
from tests.rtdetr.data.memory_dataset import blocks


def examples(resize="squash"):
    source = DetectionSource(blocks(), DataConfig(size=(128, 160), resize=resize), 0, 1, 1, False)
    return [source[index] for index in range(5)]


def test_each_box_is_outlined_inside_of_its_edges():
    example = examples()[0]
    picture = drawn(example, ("a", "b", "c"))
    for label, box in zip(example["labels"], example["boxes"]):
        if label < 0:
            continue
        x, y, width, height = box * (160, 128, 160, 128)
        middle = round(y)
        assert (picture[middle, round(x - width / 2)] == COLORS[label]).all()
        assert (picture[middle, round(x + width / 2) - 1] == COLORS[label]).all()
        assert (picture[round(y + height / 2) - 1, round(x)] == COLORS[label]).all()


def test_padding_is_marked_and_the_example_is_left_alone():
    for example in examples("letterbox"):
        before = example["image"].copy()
        picture = drawn(example, ("a", "b", "c"))
        rows, columns = example["content"]
        if columns < 160:
            assert (picture[:, columns] == PADDING).all()
        if rows < 128:
            assert (picture[rows, :] == PADDING).all()
        assert (example["image"] == before).all()


def test_examples_stand_in_rows_and_the_last_row_is_filled_up():
    found = sheet(examples(), ("a", "b", "c"), columns=3)
    assert found.shape == (2 * 128, 3 * 160, 3) and not found[128:, 320:].any()
    assert (found[:128, 160:320] == drawn(examples()[1], ("a", "b", "c"))).all()
