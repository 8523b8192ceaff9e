"""`VolumeSource`: cheap random access, stable identity, and errors that name the record."""

from __future__ import annotations

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from jepa3d.config import PrepareSettings
from jepa3d.data import VolumeSource
from jepa3d.data.prepare import prepare
from jepa3d.synthetic import write_tree
from training.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tree = write_tree(tmp_path_factory.mktemp("tree"), participants=4, faulty_files=False)
    records = tmp_path_factory.mktemp("records")
    prepare(tree, records, PrepareSettings(shape=(8, 32, 32), workers=0, records_per_shard=4))
    return records


def test_examples_have_the_promised_types(folder):
    source = VolumeSource(folder, "train", (8, 32, 32))
    example = source[0]
    assert example["volume"].dtype == np.uint8 and example["volume"].shape == (8, 32, 32)
    assert example["foreground"].dtype == bool and example["foreground"].shape == (2, 2, 2)
    assert example["valid_box"].dtype == np.int32 and example["valid_box"].shape == (3, 2)
    assert example["scanner"].dtype == np.int32 and example["spacing_mm"].shape == (3,)
    assert example["mean"].dtype == example["std"].dtype == np.float32
    assert len(source) == len(source.participants) == 4


def test_scanner_codes_are_the_same_in_every_split(folder):
    train, held_out = VolumeSource(folder, "train"), VolumeSource(folder, "eval")
    assert train.scanners == held_out.scanners and len(train.scanners) == 4
    for source in (train, held_out):
        names = [source.scanners[source[i]["scanner"]] for i in range(len(source))]
        assert names == [row["scanner"] for row in source.rows]
    assert not set(train.participants) & set(held_out.participants)


def test_threads_and_copies_see_the_same_records(folder):
    source = VolumeSource(folder, "train")
    alone = [source[i]["volume"].tobytes() for i in range(len(source))]
    fresh = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda i: fresh[i % 4]["volume"].tobytes(), range(40)))
    assert together == alone * 10
    with pytest.raises(IndexError):
        source[4]


def test_fingerprint_depends_on_content_only(folder, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    original = VolumeSource(folder, "train").fingerprint
    assert VolumeSource(moved, "train").fingerprint == original
    assert VolumeSource(folder, "eval").fingerprint != original
    lines = (moved / "index.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    next(row for row in rows if row["split"] == "train")["sha256"] = "0" * 64
    (moved / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert VolumeSource(moved, "train").fingerprint != original


def test_a_damaged_record_is_named(folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    shard = next(broken.glob("*train*-00000"))
    data = bytearray(shard.read_bytes())
    body = np.flatnonzero(np.frombuffer(bytes(data), np.uint8))
    data[int(body[len(body) // 2])] ^= 0xFF
    shard.write_bytes(data)
    source = VolumeSource(broken, "train")
    failures = []
    for index in range(len(source)):
        try:
            source[index]
        except InputError as error:
            failures.append((index, str(error)))
    assert failures and all(shard.name in text for _, text in failures)
    assert any(source.rows[index]["path"] in text for index, text in failures)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("nowhere", "train"), "does not exist"), ((None, "nights"), "no volume in split")],
)
def test_missing_folders_and_splits_are_one_sentence(folder, arguments, message):
    with pytest.raises(InputError, match=message):
        VolumeSource(arguments[0] or folder, arguments[1])


def test_another_shape_is_refused(folder):
    with pytest.raises(InputError, match="the model expects"):
        VolumeSource(folder, "train", (64, 384, 384))
