"""Preparing data sets: every format gives the same, and nothing is lost without a word."""

from __future__ import annotations

import io
import pickle
from dataclasses import replace

import numpy as np
import pytest
from etils import epath
from PIL import Image

from rtdetr.data.preparation import prepare, read_source
from rtdetr.data.prepared import open_classes, open_split
from tests.rtdetr.data.prepared import LENIENT, edited, findings, prepared
from tests.rtdetr.data.trees import NAMES, OBJECTS, SIZE, SPLITS, TREES, coco, picture, write
from training.errors import DataFault, InputError


@pytest.mark.parametrize("form", TREES)
def test_every_format_gives_the_same_boxes_labels_and_files(tmp_path, form):
    folder = TREES[form](tmp_path / form)
    _, output = prepared(folder, tmp_path)
    names = sorted(NAMES) if form == "voc" else list(NAMES)
    assert list(open_classes(output).names) == names
    for split, images in SPLITS.items():
        dataset = open_split(output, split)
        assert [dataset.name(i).split("/")[-1] for i in range(len(dataset))] == [
            f"{name}.png" for name in images
        ]
        for index, name in enumerate(images):
            objects = dataset.objects(index)
            assert dataset.encoded(index) == picture(name)
            assert dataset.size(index) == SIZE
            wanted = np.array([box for _, *box in OBJECTS[name]], np.float32).reshape(-1, 4)
            # YOLO writes six decimals of a fraction: at most 0.00004 px here.
            np.testing.assert_allclose(objects.boxes.values, wanted, atol=1e-3)
            labels = [dataset.classes.names[label] for label in objects.labels]
            assert labels == [NAMES[label] for label, *_ in OBJECTS[name]]


def test_labels_are_places_in_the_table_and_source_ids_are_kept(tmp_path):
    _, output = prepared(coco(tmp_path / "coco"), tmp_path)
    table = open_classes(output)
    assert table.source_ids == (1, 5, 90)
    dataset = open_split(output, "train")
    assert dataset.objects(0).labels.tolist() == [0, 2] and dataset.image_id(0) == 7


def test_a_category_that_only_groups_others_is_left_out_and_told(tmp_path):
    report, output = prepared(TREES["roboflow"](tmp_path / "set"), tmp_path)
    assert len(open_classes(output)) == 3
    assert "'animals'" in report["splits"]["train"]["findings"]["grouping_category"]["examples"][0]


def test_splits_that_number_classes_otherwise_are_matched_by_name(tmp_path):
    def turned(content):
        ids = {1: 90, 5: 1, 90: 5}
        for row in content["categories"]:
            row["id"] = ids[row["id"]]
        for row in content["annotations"]:
            row["category_id"] = ids[row["category_id"]]

    folder = edited(coco(tmp_path / "coco"), turned, "val2017")
    report, output = prepared(folder, tmp_path)
    assert findings(report)["class_numbers_differ"] == 1
    assert open_split(output, "val").objects(0).labels.tolist() == [1]  # still the dog


def test_splits_with_other_classes_are_refused_with_their_names(tmp_path):
    def renamed(content):
        content["categories"][0]["name"] = "tiger"

    folder = edited(coco(tmp_path / "coco"), renamed, "val2017")
    with pytest.raises(InputError, match="val lacks cat and adds tiger"):
        prepared(folder, tmp_path)


def test_two_classes_of_one_name_are_refused(tmp_path):
    def doubled(content):
        content["categories"][1]["name"] = "cat"

    with pytest.raises(InputError, match="two categories called 'cat'"):
        prepared(edited(coco(tmp_path / "coco"), doubled), tmp_path)


BAD_OBJECTS = {
    "box_without_area": {"bbox": [5, 5, 0, 10]},
    "box_outside": {"bbox": [200, 5, 10, 10]},
    "box_without_numbers": {"bbox": ["x", 5, 10, 10]},
    "unknown_category": {"category_id": 44},
    "duplicate_box": {},
    "box_clipped": {"bbox": [70, 50, 30, 30]},
    "tiny_box": {"bbox": [5, 5, 0.5, 10]},
}
KEPT = ("box_clipped", "tiny_box")


@pytest.mark.parametrize("kind", BAD_OBJECTS)
def test_each_bad_object_is_counted_with_an_example_and_the_rest_stays(tmp_path, kind):
    def spoiled(content):
        row = dict(content["annotations"][0], id=99, **BAD_OBJECTS[kind])
        content["annotations"].append(row)

    report, output = prepared(edited(coco(tmp_path / "coco"), spoiled), tmp_path)
    assert findings(report)[kind] == 1
    assert "a.png, object 99" in report["splits"]["train"]["findings"][kind]["examples"][0]
    boxes = open_split(output, "train").objects(0).boxes.values
    assert len(boxes) == (3 if kind in KEPT else 2)
    if kind == "box_clipped":
        np.testing.assert_array_equal(boxes[-1], [70, 50, 10, 10])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e400])
def test_boxes_that_are_no_numbers_are_left_out(tmp_path, value):
    def spoiled(content):
        content["annotations"][0]["bbox"][2] = value

    report, output = prepared(edited(coco(tmp_path / "coco"), spoiled), tmp_path)
    assert findings(report)["box_without_numbers"] == 1
    assert len(open_split(output, "train").objects(0).labels) == 1


def test_images_that_are_missing_or_cut_off_are_left_out_and_named(tmp_path):
    folder = coco(tmp_path / "coco")
    write(folder / "train2017" / "a.png", picture("a")[:500])
    (folder / "train2017" / "b.png").unlink()
    extra = {"id": 50, "file_name": "d.png", "height": 60, "width": 80}
    write(folder / "train2017" / "d.png", picture("d"))

    def spoiled(content):
        content["images"].append(extra)
        row = dict(content["annotations"][0], image_id=50, id=9)
        content["annotations"] += [row, dict(row, image_id=4711, id=10)]

    report, output = prepared(edited(folder, spoiled), tmp_path)
    found = findings(report)
    assert (found["missing_image"], found["unreadable_image"]) == (1, 1)
    assert found["annotation_without_image"] == 1
    assert [open_split(output, "train").name(i) for i in range(1)] == ["d.png"]
    with pytest.raises(DataFault, match=r"1 unreadable image"):
        prepared(folder, tmp_path / "strict", replace(LENIENT, max_bad_fraction=0.01))
    assert not (tmp_path / "strict" / "prepared" / "dataset.json").exists()


def test_the_same_image_in_two_splits_is_refused(tmp_path):
    folder = coco(tmp_path / "coco")
    same = Image.open(io.BytesIO(picture("a")))
    file = io.BytesIO()
    same.save(file, "BMP")  # other bytes, the same pixels
    write(folder / "val2017" / "c.png", file.getvalue())
    with pytest.raises(InputError, match=r"c.png has the pixels of a.png in train"):
        prepared(folder, tmp_path)
    report, _ = prepared(folder, tmp_path / "more", replace(LENIENT, allow_overlap=True))
    assert findings(report, "val")["duplicate_across_splits"] == 1


def test_without_a_validation_split_images_are_held_out_by_name(tmp_path):
    folder = coco(tmp_path / "coco")
    (folder / "annotations" / "instances_val2017.json").unlink()
    _, output = prepared(folder, tmp_path, replace(LENIENT, eval_fraction=0.5))
    held_out = [open_split(output, "val").name(0)]
    source, splits = read_source(folder, "auto")
    splits[0].images.reverse()
    other = epath.Path(tmp_path / "other")
    prepare(splits, source, other, replace(LENIENT, eval_fraction=0.5), lambda _: None)
    assert [open_split(other, "val").name(0)] == held_out


@pytest.mark.parametrize(
    "content, said",
    [
        ("", "is no JSON file"),
        ("[1, 2]", "holds a list"),
        ('{"images": [], "categories": []}', "no list 'annotations'"),
        ('{"images": [], "annotations": []}', "no list 'categories'"),
        ('{"images": [{"id": "x"}], "annotations": [], "categories": []}', "a whole number"),
        ('{"images": [{"id": 1e999}], "annotations": [], "categories": []}', "a whole number"),
        ('{"images": [], "annotations": [], "categories": []}', "no usable images"),
        ('{"images": [], "annotations": [], "categories": [{"id": "x"}]}', "no whole number"),
    ],
)
def test_files_that_are_no_annotations_are_refused_in_a_sentence(tmp_path, content, said):
    folder = coco(tmp_path / "coco")
    write(folder / "annotations" / "instances_train2017.json", content)
    with pytest.raises(InputError, match=said):
        prepared(folder, tmp_path)


def test_ids_written_as_text_are_numbers(tmp_path):
    def as_text(content):
        for row in content["annotations"]:
            row["image_id"], row["category_id"] = str(row["image_id"]), str(row["category_id"])

    _, output = prepared(edited(coco(tmp_path / "coco"), as_text), tmp_path)
    assert open_split(output, "train").objects(0).labels.tolist() == [0, 2]


def test_a_folder_of_nothing_known_is_refused_with_what_is_known(tmp_path):
    with pytest.raises(InputError, match=r"COCO has annotations/instances_\*.json"):
        read_source(tmp_path, "auto")


def test_an_interrupted_preparation_does_not_open(tmp_path):
    _, output = prepared(coco(tmp_path / "coco"), tmp_path)
    (output / "dataset.json").unlink()
    with pytest.raises(InputError, match="interrupted"):
        open_split(output, "train")


def test_a_data_set_travels_between_processes_and_knows_when_it_changed(tmp_path):
    folder = coco(tmp_path / "coco")
    _, output = prepared(folder, tmp_path)
    dataset = open_split(output, "train")
    whole = dataset.encoded(0)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.encoded(0) == whole and copy.fingerprint == dataset.fingerprint
    write(folder / "train2017" / "a.png", picture("other"))
    _, again = prepared(folder, tmp_path / "again")
    assert open_split(again, "train").fingerprint != dataset.fingerprint


def test_real_blood_cells_have_the_documented_counts(data_root, tmp_path):
    report, output = prepared(data_root / "detector" / "bccd", tmp_path)
    splits = report["splits"]
    assert [splits[s]["images"] for s in ("train", "val", "test")] == [205, 87, 72]
    assert sum(split["objects"] for split in splits.values()) == 4888 - 2
    assert [findings(report, s).get("box_without_area", 0) for s in ("train", "val")] == [1, 1]
    assert open_classes(output).names == ("Platelets", "RBC", "WBC")


def test_real_coco_keeps_crowds_and_images_without_objects(data_root, tmp_path):
    report, output = prepared(data_root / "detector" / "tiny_coco", tmp_path)
    train = report["splits"]["train"]
    assert (train["images"], train["objects"], train["crowds"]) == (50, 465, 5)
    assert findings(report)["image_without_object"] == 1
    table = open_classes(output)
    assert len(table) == 80 and table.source_ids[-1] == 90


def test_images_without_objects_are_left_out_when_asked(tmp_path):
    folder = coco(tmp_path / "coco")
    report, output = prepared(folder, tmp_path, replace(LENIENT, drop_unannotated=True))
    found = findings(report)
    assert found["unannotated_image"] == 1 and "image_without_object" not in found
    dataset = open_split(output, "train")
    assert [dataset.name(i) for i in range(len(dataset))] == ["a.png"]
    assert len(dataset.encoded(0)) == len(picture("a"))


def test_images_held_out_here_are_not_copies_of_training_images(tmp_path):
    folder = coco(tmp_path / "coco")
    (folder / "annotations" / "instances_val2017.json").unlink()

    def doubled(content):
        rows = [dict(content["images"][0], id=100 + i, file_name=f"a{i}.png") for i in range(6)]
        content["images"] += rows
        content["annotations"] += [
            dict(content["annotations"][0], id=100 + i, image_id=row["id"])
            for i, row in enumerate(rows)
        ]

    for number in range(6):
        write(folder / "train2017" / f"a{number}.png", picture("a"))
    settings = replace(LENIENT, eval_fraction=0.6)
    report, output = prepared(edited(folder, doubled), tmp_path, settings)
    copies = findings(report, "val")["copy_of_training_image"]
    assert copies > 0
    images = [open_split(output, split) for split in ("train", "val")]
    assert sum(map(len, images)) == 8 - copies
    digests = [{split.digest(i) for i in range(len(split))} for split in images]
    assert not digests[0] & digests[1]


def test_a_split_without_any_object_is_told_and_not_written(tmp_path):
    def emptied(content):
        content["annotations"] = []

    folder = edited(coco(tmp_path / "coco"), emptied, "val2017")
    report, output = prepared(folder, tmp_path, replace(LENIENT, eval_fraction=0.0))
    assert findings(report)["split_without_objects"] == 1
    with pytest.raises(InputError, match=r"no split 'val'; it has train"):
        open_split(output, "val")


def test_the_doctor_tells_shapes_of_images_and_sizes_of_objects(tmp_path):
    report, _ = prepared(coco(tmp_path / "coco"), tmp_path)
    train = report["splits"]["train"]
    assert train["aspects"] == {"1.3": 2} and train["sizes"] == [[*SIZE, 2]]
    assert train["by_area"] == {"small": 2, "medium": 0, "large": 0}
    assert train["objects_of_an_image"] == {"0": 1, "2": 1}
    assert train["by_class"] == {"cat": 1, "dog": 0, "bird": 1}


def test_a_training_split_of_which_nothing_is_left_is_refused_with_the_reasons(tmp_path):
    folder = coco(tmp_path / "coco")
    for name in ("a", "b"):
        (folder / "train2017" / f"{name}.png").unlink()
    with pytest.raises(InputError, match=r"\(2 missing image\), so there is nothing to learn"):
        prepared(folder, tmp_path, replace(LENIENT, max_bad_fraction=0.999))
