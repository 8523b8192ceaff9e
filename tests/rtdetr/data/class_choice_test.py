"""A choice of classes: kept, renamed and merged by name; what is left out is counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rtdetr.data.class_choice import entries_of, with_chosen_classes
from rtdetr.data.prepared import open_classes, open_split
from rtdetr.data.readers.annotations import Annotated, AnnotatedImage, AnnotatedSplit
from tests.rtdetr.data.prepared import LENIENT, edited, findings, prepared
from tests.rtdetr.data.trees import TREES, coco
from training.errors import ConfigError, InputError


def split_of(categories, *objects, name="train"):
    """A split of one image with an object of each of these category ids."""
    items = tuple(Annotated((0, 0, 9, 9), category, id=n) for n, category in enumerate(objects))
    return AnnotatedSplit(name, [AnnotatedImage("a", lambda: b"", items)], categories)


def chosen(split, *entries):
    (result,) = with_chosen_classes([split], entries)
    return result


def names_of(split):
    return [split.categories.get(o.category) for image in split.images for o in image.objects]


@pytest.mark.parametrize("form", TREES)
def test_a_chosen_class_keeps_its_objects_and_every_image_stays(tmp_path, form):
    settings = replace(LENIENT, classes=("bird", "pet=cat+dog"))
    report, output = prepared(TREES[form](tmp_path / form), tmp_path, settings)
    table = open_classes(output).names
    assert set(table) == {"pet", "bird"}
    train, val = open_split(output, "train"), open_split(output, "val")
    assert [table[label] for label in train.objects(0).labels] == ["pet", "bird"]
    assert [table[label] for label in val.objects(0).labels] == ["pet"] and len(train) == 2
    assert "object_of_other_class" not in findings(report)


def test_what_is_left_out_is_counted_by_name_and_its_image_is_kept(tmp_path):
    settings = replace(LENIENT, classes=("cat", "dog"))
    report, output = prepared(coco(tmp_path / "coco"), tmp_path, settings)
    assert findings(report)["object_of_other_class"] == 1
    told = report["splits"]["train"]["findings"]["object_of_other_class"]["examples"]
    assert told == ["1 of 'bird'"] and len(open_split(output, "train")) == 2
    split = chosen(split_of({1: "cat", 2: "dog", 3: "bird"}, 1, 1, 2, 3, 3, 3), "dog")
    other = ("object_of_other_class", "3 of 'bird'"), ("object_of_other_class", "2 of 'cat'")
    assert split.findings == [other[0]] * 3 + [other[1]] * 2 and names_of(split) == ["dog"]


def test_a_choice_without_any_object_to_learn_from_is_refused(tmp_path):
    with pytest.raises(InputError, match="none is of a class that --classes names"):
        prepared(coco(tmp_path / "coco"), tmp_path, replace(LENIENT, classes=("dog",)))


def test_a_merged_class_has_one_number_and_objects_without_a_class_stay_faults():
    split = chosen(split_of({4: "car", 7: "truck", 9: "dog"}, 7, 4, 9, 5), "vehicle=car+truck")
    assert split.categories == {4: "vehicle"} and names_of(split) == ["vehicle"] * 2 + [None]
    assert [o.category for o in split.images[0].objects] == [4, 4, 5]  # 5 never had a name


def test_splits_may_disagree_about_classes_that_are_not_chosen(tmp_path):
    def renamed(content):
        content["categories"][0]["name"] = "tiger"

    folder = edited(coco(tmp_path / "coco"), renamed, "val2017")
    settings = replace(LENIENT, classes=("dog", "bird"))
    _, output = prepared(folder, tmp_path, settings)
    assert open_classes(output).names == ("dog", "bird")


def test_names_that_look_like_entries_are_names():
    split = split_of({1: "a+b", 2: "a=b", 3: "c"}, 1, 2, 3)
    assert names_of(chosen(split, "a+b", "a=b")) == ["a+b", "a=b"]
    assert names_of(chosen(split, "x=a+b")) == ["x"]


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (("cta",), "names 'cta', which no split has; did you mean cat"),
        (("pet=cat+dgo",), "names 'dgo', which no split has; did you mean dog"),
        (("cat", "pet=cat"), "names 'cat' twice"),
        (("pet=cat", "pet=dog"), "makes the class 'pet' twice"),
        (("pet=",), "has the entry 'pet='"),
        (("pet=cat+",), "names '', which no split has; known are cat, dog"),
    ],
)
def test_a_choice_that_cannot_be_meant_is_refused(entries, said):
    with pytest.raises(InputError, match=said):
        chosen(split_of({1: "cat", 2: "dog"}, 1, 2), *entries)


def test_entries_come_from_the_argument_or_from_a_file(tmp_path):
    assert entries_of(" cat, pet=dog+bird ,") == ("cat", "pet=dog+bird")
    path = tmp_path / "classes.txt"
    path.write_text("traffic light, red\n\npet=dog\n")
    assert entries_of(str(path)) == ("traffic light, red", "pet=dog")
    with pytest.raises(ConfigError, match="names no class"):
        entries_of(" , ")
