"""Records prepared into a bucket: equal to those on a disk, resumable, readable."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from jepa3d.config import PrepareSettings
from jepa3d.data import VolumeSource
from jepa3d.data import prepare as prepare_module
from jepa3d.data.prepare import prepare
from jepa3d.synthetic import write_tree
from training import storage
from training.folder_lock import LOCK

SETTINGS = PrepareSettings(shape=(8, 32, 32), workers=0, records_per_shard=2)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree"), participants=4)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PODVISION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def contents(folder):
    files = storage.list_folder(folder)
    return {path.name: path.read_bytes() for path in files if path.name != LOCK}


def test_prepared_data_in_a_bucket_is_that_on_a_disk(tree, bucket, tmp_path, cache):
    prepare(tree, tmp_path / "disk", SETTINGS)
    prepare(tree, bucket, SETTINGS)
    assert contents(bucket) == contents(tmp_path / "disk")

    local, remote = (VolumeSource(place, "train") for place in (tmp_path / "disk", bucket))
    assert remote.fingerprint == local.fingerprint
    remote = pickle.loads(pickle.dumps(remote))
    for index in range(len(local)):
        np.testing.assert_equal(remote[index], local[index])
    copies = list(cache.glob("records/*"))
    assert len(copies) == 1
    VolumeSource(bucket, "train")[0]
    assert list(cache.glob("records/*")) == copies


def test_a_second_preparation_does_nothing_and_an_interrupted_one_goes_on(
    tree, bucket, monkeypatch
):
    def interrupt(done, total, row):
        if done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tree, bucket, SETTINGS, interrupt)
    made = []
    prepare(tree, bucket, SETTINGS, lambda done, total, row: made.append(total))
    before = contents(bucket)
    assert 0 < len(made) <= before["index.jsonl"].count(b"\n") / 2 + 1
    assert "journal.jsonl" not in before

    monkeypatch.setattr(prepare_module, "run_all", lambda tasks, workers: iter(tasks and 1 / 0))
    prepare(tree, bucket, SETTINGS)
    assert contents(bucket) == before


def test_a_hole_in_the_numbers_of_shards_is_closed(tree, bucket, cache):
    prepare(tree, bucket, SETTINGS)
    shards = [name for name in contents(bucket) if "-train." in name]
    victim = next(row for row in VolumeSource(bucket, "train").rows if row["shard"] == 0)
    (tree / victim["path"]).unlink()
    prepare(tree, bucket, SETTINGS)
    left = [name for name in contents(bucket) if "-train." in name]
    assert left == shards[: len(left)]
    source = VolumeSource(bucket, "train")
    assert len({source[i]["volume"].tobytes() for i in range(len(source))}) == len(source)
