"""A scan under two names is kept once; under two persons, not at all."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from pydicom.uid import JPEG2000Lossless

from jepa3d.config import PrepareSettings
from jepa3d.data import VolumeSource
from jepa3d.data.duplicates import voxel_hash
from jepa3d.data.index import read_rows
from jepa3d.data.prepare import prepare
from tests.jepa3d.data.oct_files import make_dataset, random_pixels, save

SMALL = PrepareSettings(
    shape=(8, 32, 32), patch=(4, 16, 16), workers=0, records_per_shard=2, eval_fraction=0.4
)


def scan(folder, name, person, seed, uid="", syntax=None):
    pixels = random_pixels((6, 192, 48), seed)
    uid = uid or f"2.25.{1000 + sum(name.encode())}{seed}"
    dataset = make_dataset(pixels, participant=person, uid=uid)
    if syntax:
        dataset.compress(syntax, generate_instance_uid=False)
    return save(dataset, folder, name)


def rows_of(folder) -> dict[str, dict]:
    return {row["path"]: row for row in read_rows(folder / "index.jsonl")}


def reasons(folder) -> dict[str, str | None]:
    return {path: row["reason"] for path, row in rows_of(folder).items()}


def records(folder) -> list[str]:
    """Paths of the records, of which no shard may hold another."""
    rows = [row for row in rows_of(folder).values() if row["status"] == "ok"]
    splits = {row["split"] for row in rows}
    shards = folder.glob("*.array_record-*")
    assert sum(ArrayRecordReader(str(path)).num_records() for path in shards) == len(rows)
    return sorted(row["path"] for split in splits for row in VolumeSource(folder, split).rows)


@pytest.fixture
def people(tmp_path):
    """Two scans of each of four persons."""
    for person in "abcd":
        for number in (1, 2):
            scan(tmp_path / "in", f"{person}{number}.dcm", person, 10 * ord(person) + number)
    return tmp_path / "in"


def test_equal_voxels_of_one_person_are_kept_once_with_a_row_that_says_so(people, tmp_path):
    seed = 10 * ord("b") + 1
    scan(people / "copies", "packed.dcm", "b", seed, syntax=JPEG2000Lossless)
    account = prepare(people, tmp_path / "out", SMALL)
    row = rows_of(tmp_path / "out")["copies/packed.dcm"]
    assert row["reason"] == "duplicate" and row["duplicate_of"] == "b1.dcm"
    assert "the same voxels as b1.dcm, which is kept" in row["detail"]
    assert account.volumes == 8 and account.fault() == ""
    before = (tmp_path / "out" / "index.jsonl").read_bytes()
    assert prepare(people, tmp_path / "out", SMALL).new_volumes == 0
    assert (tmp_path / "out" / "index.jsonl").read_bytes() == before


def test_one_instance_uid_of_one_person_is_one_scan(people, tmp_path):
    scan(people, "x.dcm", "b", 1, uid="2.25.5")
    scan(people, "y.dcm", "b", 2, uid="2.25.5")
    prepare(people, tmp_path / "out", SMALL)
    row = rows_of(tmp_path / "out")["y.dcm"]
    assert (row["reason"], row["duplicate_of"]) == ("duplicate", "x.dcm")
    assert "SOPInstanceUID" in row["detail"]


@pytest.mark.parametrize("evidence", ["voxels", "uid"])
def test_a_scan_of_two_persons_is_in_neither_train_nor_eval(people, tmp_path, evidence):
    seeds = (7, 7) if evidence == "voxels" else (7, 8)
    uids = ("2.25.5", "2.25.6") if evidence == "voxels" else ("2.25.5", "2.25.5")
    scan(people, "x.dcm", "a", seeds[0], uids[0])
    scan(people, "y.dcm", "d", seeds[1], uids[1])
    account = prepare(people, tmp_path / "out", SMALL)
    found = rows_of(tmp_path / "out")
    for path, other, person in (("x.dcm", "y.dcm", "d"), ("y.dcm", "x.dcm", "a")):
        assert found[path]["reason"] == "shared_volume" and found[path]["duplicate_of"] == other
        assert f"{other} of participant {person}" in found[path]["detail"]
        assert found[path]["split"] is None and found[path]["shard"] is None
    expected = sorted(f"{person}{number}.dcm" for person in "abcd" for number in (1, 2))
    assert records(tmp_path / "out") == expected and account.new_volumes == 8
    before = (tmp_path / "out" / "index.jsonl").read_bytes()
    assert prepare(people, tmp_path / "out", SMALL).new_volumes == 0
    assert (tmp_path / "out" / "index.jsonl").read_bytes() == before


def test_a_third_person_with_the_scan_gets_it_neither(people, tmp_path):
    for name, person in (("x.dcm", "a"), ("y.dcm", "d")):
        scan(people, name, person, 7, uid=f"2.25.{ord(person)}")
    prepare(people, tmp_path / "out", SMALL)
    scan(people, "z.dcm", "b", 7, uid="2.25.3")
    prepare(people, tmp_path / "out", SMALL)
    assert {path for path, reason in reasons(tmp_path / "out").items() if reason} == {
        "x.dcm",
        "y.dcm",
        "z.dcm",
    }


def test_a_copy_under_another_person_takes_the_old_record_back(people, tmp_path):
    prepare(people, tmp_path / "out", SMALL)
    shutil.copy(people / "a1.dcm", tmp_path / "kept.dcm")
    scan(people, "copy.dcm", "c", 10 * ord("a") + 1)
    prepare(people, tmp_path / "out", SMALL)
    assert reasons(tmp_path / "out")["a1.dcm"] == "shared_volume"
    assert "a1.dcm" not in records(tmp_path / "out") and len(records(tmp_path / "out")) == 7
    (people / "copy.dcm").unlink()
    assert prepare(people, tmp_path / "out", SMALL).volumes == 8
    assert "a1.dcm" in records(tmp_path / "out")


def test_a_duplicate_takes_the_place_of_a_scan_that_went_away(people, tmp_path):
    scan(people, "b3.dcm", "b", 10 * ord("b") + 1)
    prepare(people, tmp_path / "out", SMALL)
    assert reasons(tmp_path / "out")["b3.dcm"] == "duplicate"
    (people / "b1.dcm").unlink()
    prepare(people, tmp_path / "out", SMALL)
    assert reasons(tmp_path / "out")["b3.dcm"] is None


def test_the_hash_depends_on_voxels_and_shape_alone():
    pixels = random_pixels((4, 6, 8))
    assert voxel_hash(pixels) == voxel_hash(np.asfortranarray(pixels))
    assert voxel_hash(pixels) != voxel_hash(pixels.reshape(4, 8, 6))
    changed = pixels.copy()
    changed[3, 5, 7] ^= 1
    assert voxel_hash(pixels) != voxel_hash(changed)
