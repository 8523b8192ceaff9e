"""Readers of formats: what cannot be understood is a finding, and what is unusual is understood."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rtdetr.data.preparation import read_source
from rtdetr.data.readers.annotations import Annotated, AnnotatedSplit
from tests.rtdetr.data.trees import coco, picture, voc, write, yolo
from training.errors import InputError

TRAIN = "annotations/instances_train2017.json"


def read(
    folder: Path, split: str = "train"
) -> tuple[AnnotatedSplit, list[str], tuple[Annotated, ...]]:
    """The split, its findings by kind, and the objects of its first image."""
    _, splits = read_source(folder, "auto")
    (chosen,) = [s for s in splits if s.name == split]
    kinds = [kind for kind, _ in chosen.findings]
    return chosen, kinds, chosen.images[0].objects if chosen.images else ()


def changed(folder, rows, **values):
    """A COCO data set whose first image or annotation says something else."""
    content = json.loads((folder / TRAIN).read_text())
    content[rows][0].update(values)
    write(folder / TRAIN, json.dumps(content))
    return folder


@pytest.mark.parametrize("value", ["x", None, 1.5, float("nan"), float("inf"), 10**30, [1]])
@pytest.mark.parametrize("key", ["image_id", "category_id"])
def test_an_object_whose_ids_are_no_whole_numbers_is_left_out_and_named(tmp_path, key, value):
    folder = changed(coco(tmp_path), "annotations", **{key: value})
    split, kinds, objects = read(folder)
    assert kinds == ["bad_entry"] and len(objects) == 1
    assert f"as {key}" in split.findings[0][1]


@pytest.mark.parametrize("value", ["x", None, float("nan"), 10**30])
def test_an_image_whose_id_is_no_whole_number_is_left_out_with_its_objects(tmp_path, value):
    split, kinds, _ = read(changed(coco(tmp_path), "images", id=value))
    assert kinds == ["bad_entry", "annotation_without_image", "annotation_without_image"]
    assert [image.name for image in split.images] == ["b.png"]


@pytest.mark.parametrize("value", ["x", float("nan"), float("inf"), 10**30])
def test_the_id_of_an_object_may_be_anything(tmp_path, value):
    _, kinds, objects = read(changed(coco(tmp_path), "annotations", id=value))
    assert kinds == [] and objects[0].id is None and objects[1].id == 2


def test_an_id_that_two_objects_share_is_told(tmp_path):
    _, kinds, objects = read(changed(coco(tmp_path), "annotations", id=2))
    assert kinds == ["duplicate_object_id"] and len(objects) == 2


@pytest.mark.parametrize("value", ["x", float("nan"), [1], -float("inf")])
def test_a_size_that_is_no_number_is_told_and_the_image_stays(tmp_path, value):
    split, kinds, _ = read(changed(coco(tmp_path), "images", height=value))
    assert kinds == ["wrong_size"] and split.images[0].size is None


@pytest.mark.parametrize("value, crowd", [("0", False), ("1", True), (0, False), (True, True)])
def test_crowds_may_be_written_as_text(tmp_path, value, crowd):
    _, _, objects = read(changed(coco(tmp_path), "annotations", iscrowd=value))
    assert objects[0].crowd is crowd


@pytest.mark.parametrize("value", ["1234", None, [1, 2, 3], [1, 2, 3, 4, 5], {}, 7])
def test_a_box_that_is_no_list_of_four_numbers_is_none(tmp_path, value):
    _, _, objects = read(changed(coco(tmp_path), "annotations", bbox=value))
    assert objects[0].box is None and objects[1].box is not None


def test_paths_in_the_spelling_of_windows_are_found(tmp_path):
    folder = changed(coco(tmp_path), "images", file_name="train2017\\a.png")
    assert read(folder)[0].images[0].read() == picture("a")


@pytest.mark.parametrize("name", ["instances_default.json", "result.json"])
def test_a_data_set_in_one_file_is_all_training(tmp_path, name):
    folder = coco(tmp_path)
    (folder / "annotations" / "instances_val2017.json").unlink()
    (folder / TRAIN).rename(folder / "annotations" / name)
    (folder / "train2017").rename(folder / "images")
    split, _, objects = read(folder)
    assert len(objects) == 2 and split.images[0].read() == picture("a")


def test_an_annotation_file_can_be_given_itself(tmp_path):
    split, _, objects = read(coco(tmp_path) / TRAIN)
    assert len(objects) == 2 and split.images[0].read() == picture("a")


def test_two_annotation_files_of_one_split_are_refused_by_name(tmp_path):
    folder = coco(tmp_path)
    shutil.copy(folder / TRAIN, folder / "annotations" / "instances_train2014.json")
    with pytest.raises(InputError, match=r"train2014.json and .*train2017.json are both of"):
        read_source(folder, "auto")


def test_annotations_of_other_tasks_beside_the_instances_are_not_read(tmp_path):
    folder = coco(tmp_path)
    for name in ("captions_train2017", "person_keypoints_train2017", "stuff_train2017"):
        write(folder / "annotations" / f"{name}.json", "no instances")
    assert len(read(folder)[2]) == 2


@pytest.mark.parametrize(
    "line", ["0 .5 .5", "x .5 .5 .1 .1", "inf .5 .5 .1 .1", "nan .5 .5 .1 .1", "1.7 .5 .5 .1 .1"]
)
def test_a_line_that_is_no_object_is_left_out_and_named(tmp_path, line):
    folder = yolo(tmp_path)
    write(folder / "train/labels/a.txt", f"{line}\n2 .5 .5 .1 .1\n")
    split, kinds, objects = read(folder)
    assert kinds == ["bad_line"] and [o.category for o in objects] == [2]
    assert "line 1 of a.txt" in split.findings[0][1]


def test_polygons_become_boxes_and_keypoints_stay_out_of_them(tmp_path):
    folder = yolo(tmp_path)
    write(folder / "train/labels/a.txt", "1 .2 .1 .6 .3 .4 .5\n0 .5 .5 .2 .2 .9\n")
    outline, with_confidence = read(folder)[2]
    assert outline.box == pytest.approx((0.2, 0.1, 0.4, 0.4))
    assert with_confidence.box == pytest.approx((0.4, 0.4, 0.2, 0.2))
    description = (folder / "data.yaml").read_text()
    write(folder / "data.yaml", description + "kpt_shape: [2, 2]\n")
    write(folder / "train/labels/a.txt", "1 .5 .5 .2 .2 .9 .9 .1 .1\n")
    assert read(folder)[2][0].box == pytest.approx((0.4, 0.4, 0.2, 0.2))


def test_labels_without_an_image_are_told(tmp_path):
    folder = yolo(tmp_path)
    write(folder / "train/labels/gone.txt", "0 .5 .5 .1 .1\n")
    split, kinds, _ = read(folder)
    assert kinds == ["annotation_without_image"] and split.findings[0][1] == "gone.txt"


def test_darknet_lists_its_images_in_files(tmp_path):
    folder = yolo(tmp_path)
    (folder / "data.yaml").unlink()
    (folder / "obj_train_data").mkdir()
    for path in [*folder.glob("*/images/*"), *folder.glob("*/labels/*")]:
        path.rename(folder / "obj_train_data" / path.name)
    write(folder / "obj.names", "cat\ndog\nbird\n")
    write(folder / "train.txt", "data/obj_train_data/a.png\ndata/obj_train_data/b.png\n")
    write(folder / "valid.txt", "data/obj_train_data/c.png\n")
    split, _, objects = read(folder)
    assert len(split.images) == 2 and [o.category for o in objects] == [0, 2]
    assert [o.category for o in read(folder, "val")[2]] == [1]


@pytest.mark.parametrize(
    "content", ["<annot", "", '<?xml version="1.0" encoding="bogus"?><annotation/>', "<!ENTITY a>"]
)
def test_xml_that_cannot_be_read_costs_its_image_alone(tmp_path, content):
    folder = voc(tmp_path)
    write(folder / "Annotations/a.xml", content)
    split, kinds, _ = read(folder)
    assert kinds == ["bad_annotation_file"] and "a.xml" in split.findings[0][1]
    assert [image.name for image in split.images] == ["b.png"]


def test_xml_that_is_listed_and_missing_or_there_and_not_listed_is_told(tmp_path):
    folder = voc(tmp_path)
    (folder / "Annotations/a.xml").rename(folder / "Annotations/other.xml")
    split, _, _ = read(folder)
    assert split.findings[0] == ("bad_annotation_file", "a.xml is listed and does not exist")
    assert split.findings[1] == ("unlisted_annotation", "other.xml")


def test_objects_without_a_name_make_no_class(tmp_path):
    folder = voc(tmp_path)
    path = folder / "Annotations/a.xml"
    write(path, path.read_text().replace("<name>cat</name>", "").replace(">80<", ">inf<"))
    split, _, objects = read(folder)
    assert sorted(split.categories.values()) == ["bird", "dog"]
    assert objects[0].category not in split.categories and split.images[0].size is None


def test_difficult_objects_are_told(tmp_path):
    folder = voc(tmp_path)
    path = folder / "Annotations/a.xml"
    write(path, path.read_text().replace("<bndbox>", "<difficult>1</difficult><bndbox>", 1))
    _, kinds, objects = read(folder)
    assert kinds == ["difficult_object"] and len(objects) == 2


def test_a_list_called_trainval_is_the_training_where_there_is_no_other(tmp_path):
    folder = voc(tmp_path)
    lists = folder / "ImageSets" / "Main"
    (lists / "train.txt").rename(lists / "trainval.txt")
    (lists / "val.txt").rename(lists / "test.txt")
    assert [image.name for image in read(folder)[0].images] == ["a.png", "b.png"]
    assert [image.name for image in read(folder, "test")[0].images] == ["c.png"]
