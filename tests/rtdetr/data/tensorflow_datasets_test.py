"""Data sets that tensorflow-datasets has made are read without TensorFlow."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from rtdetr.data.readers.tensorflow_datasets import read
from tests.rtdetr.data.trees import SIZE, picture
from training.errors import InputError

NAMES = ["RBC", "WBC", "Platelets"]  # as the builder `bccd` has them
# Top, left, bottom, right as fractions, and the label.
OBJECTS = {"a": [((0.1, 0.2, 0.5, 0.6), 1), ((0.0, 0.0, 1.0, 1.0), 2)], "b": []}


def written(folder):
    """A data set `bccd` as `tfds build --file_format=array_record` leaves it."""
    place = folder / "bccd" / "1.0.0"
    place.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(*SIZE, 3)),
            "image/filename": tfds.features.Text(),
            "objects": tfds.features.Sequence(
                {
                    "bbox": tfds.features.BBoxFeature(),
                    "label": tfds.features.ClassLabel(names=NAMES),
                }
            ),
        }
    )
    features.save_config(str(place))
    lengths = {"train": list(OBJECTS), "test": ["a"]}
    for split, names in lengths.items():
        path = place / f"bccd-{split}.array_record-00000-of-00001"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for name in names:
            objects = [{"bbox": tfds.features.BBox(*b), "label": k} for b, k in OBJECTS[name]]
            row = {"image": io.BytesIO(picture(name)), "image/filename": f"{name}.png"}
            encoded = features.encode_example(row | {"objects": objects})
            writer.write(features.serialize_example(encoded))
        writer.close()
    splits = [
        {"name": split, "shardLengths": [str(len(names))], "numBytes": "1"}
        for split, names in lengths.items()
    ]
    info = {"name": "bccd", "version": "1.0.0", "fileFormat": "array_record", "splits": splits}
    (place / "dataset_info.json").write_text(json.dumps(info))
    return folder


def test_boxes_classes_and_files_come_out_as_they_went_in(tmp_path):
    splits = {split.name: split for split in read("bccd", str(written(tmp_path)))}
    assert set(splits) == {"train", "test"}
    train = splits["train"]
    assert train.categories == dict(enumerate(NAMES))
    first, second = train.images
    assert (first.name, first.read(), second.objects) == ("a.png", picture("a"), ())
    found = [(o.box, o.category) for o in first.objects]
    for (box, label), ((top, left, bottom, right), wanted) in zip(found, OBJECTS["a"], strict=True):
        np.testing.assert_allclose(box, (left, top, right - left, bottom - top), atol=1e-6)
        assert label == wanted and first.fractions
    assert Image.open(io.BytesIO(first.read())).size == SIZE[::-1]
    assert "tensorflow" not in sys.modules


def test_a_name_that_is_not_known_and_data_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no data set 'no_such_thing'"):
        read("no_such_thing", str(tmp_path))
    with pytest.raises(InputError, match=r"`tfds build bccd --file_format=array_record`"):
        read("bccd", str(tmp_path))


def test_a_data_set_without_boxes_is_refused(tmp_path):
    folder = written(tmp_path)
    place = folder / "bccd" / "1.0.0"
    tfds.features.FeaturesDict({"image": tfds.features.Image()}).save_config(str(place))
    with pytest.raises(InputError, match="has no boxes"):
        read("bccd", str(folder))
