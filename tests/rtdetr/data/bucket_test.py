"""A data set prepared into a bucket is that on a disk; what was interrupted can be begun again."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from etils import epath

from rtdetr.data import preparation
from rtdetr.data.preparation import PrepareSettings, prepare, read_source
from rtdetr.data.prepared import open_classes, open_split
from rtdetr.synthetic import write_dataset
from training.errors import InputError

SETTINGS = PrepareSettings(images_per_shard=2, workers=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("shapes"), 5, 2, (48, 64))


def prepared(folder, output):
    source, splits = read_source(folder, "coco")
    prepare(splits, source, output, SETTINGS, lambda _: None)


def same(one, other):
    assert one.fingerprint == other.fingerprint and len(one) == len(other)
    for index in range(len(one)):
        assert one.encoded(index) == other.encoded(index)
        np.testing.assert_array_equal(
            one.objects(index).boxes.values, other.objects(index).boxes.values
        )


def test_a_data_set_in_a_bucket_is_that_on_a_disk(folder, bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("PODVISION_CACHE", str(tmp_path / "cache"))
    for output in (epath.Path(tmp_path / "disk"), bucket):
        prepared(folder, output)
    assert open_classes(bucket) == open_classes(tmp_path / "disk")
    for split in ("train", "val"):
        remote = pickle.loads(pickle.dumps(open_split(bucket, split)))
        same(open_split(tmp_path / "disk", split), remote)


def test_an_interrupted_preparation_is_begun_again_in_its_folder(folder, tmp_path, monkeypatch):
    output = epath.Path(tmp_path / "out")
    examine, calls = preparation.examine, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return examine(*arguments)

    monkeypatch.setattr(preparation, "examine", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepared(folder, output)
    with pytest.raises(InputError, match="is no prepared data set"):
        open_split(output, "train")
    monkeypatch.undo()
    prepared(folder, output)
    prepared(folder, epath.Path(tmp_path / "whole"))
    for split in ("train", "val"):
        same(open_split(output, split), open_split(tmp_path / "whole", split))
    assert not list(output.glob("*/.partial-*"))
