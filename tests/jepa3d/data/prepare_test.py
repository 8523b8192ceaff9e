"""`prepare`: complete accounts, idempotence, resumption, splits, a tensorflow-datasets folder."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from pydicom import dcmread

from jepa3d.config import PrepareSettings
from jepa3d.data import VolumeSource, read_volume
from jepa3d.data import prepare as prepare_module
from jepa3d.data.prepare import prepare
from jepa3d.data.resample import to_grid
from jepa3d.data.splits import assign_splits
from jepa3d.synthetic import write_tree
from training.errors import ConfigError, InputError

SMALL = PrepareSettings(shape=(8, 32, 32), patch=(4, 16, 16), workers=0, records_per_shard=4)
SCAN = (16, 192, 128)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree"), participants=8, shape=SCAN)


@pytest.fixture(scope="module")
def prepared(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    return folder, prepare(tree, folder, SMALL)


def rows_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]


def snapshot(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_input_file_and_every_manifest_row_is_accounted_for(tree, prepared):
    folder, account = prepared
    rows = {row["path"]: row for row in rows_of(folder)}
    on_disk = {p.relative_to(tree).as_posix() for p in tree.rglob("*") if p.is_file()}
    assert on_disk <= set(rows) and len(rows) == len(on_disk) + 1  # one row's file is missing
    reasons = sorted(row["reason"] for row in rows.values() if row["status"] == "skip")
    assert reasons.count("other_file") == 2  # the two tables
    assert set(reasons) == {
        "missing_file",
        "not_oct",
        "other_file",
        "scan_pattern",
        "truncated_pixel_data",
    }
    assert account.volumes == 16 and account.files == 20
    kept = next(row for row in rows.values() if row["status"] == "ok")
    assert kept["shape"] == list(SCAN) and kept["reason"] is None
    np.testing.assert_allclose(kept["spacing_mm"], [6 / 16, 1.92 / 192, 6 / 128], rtol=1e-4)


def test_records_hold_what_the_reader_and_resampler_give(tree, prepared):
    source = VolumeSource(prepared[0], "train")
    row = source.rows[3]
    volume = read_volume(tree / row["path"])
    grid = to_grid(
        volume.pixels,
        volume.spacing_mm,
        shape=(8, 32, 32),
        patch=(4, 16, 16),
        window_mm=(6, 1.92, 6),
    )
    example = source[3]
    np.testing.assert_array_equal(example["volume"], grid.volume)
    np.testing.assert_array_equal(example["foreground"], grid.foreground)
    np.testing.assert_array_equal(example["valid_box"], grid.valid_box)
    assert example["mean"] == np.float32(grid.mean) and example["std"] == np.float32(grid.std)


def test_recommended_splits_are_followed_and_people_never_shared(prepared):
    rows = [row for row in rows_of(prepared[0]) if row["status"] == "ok"]
    people = {}
    for row in rows:
        people.setdefault(row["participant"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in people.values())
    assert people["1001"] == {"eval"} and people["1004"] == {"test"} and people["1002"] == {"train"}


def test_a_second_run_does_nothing(tree, prepared):
    folder, _ = prepared
    before = snapshot(folder)
    times = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.array_record*")}
    assert prepare(tree, folder, SMALL).new_volumes == 0
    assert snapshot(folder) == before
    assert times == {p.name: p.stat().st_mtime_ns for p in folder.glob("*.array_record*")}


def test_the_result_does_not_depend_on_the_number_of_workers(tree, prepared, tmp_path):
    small = tmp_path / "tree"
    for person in ("1001", "1002"):
        for path in tree.rglob(f"{person}_*.dcm"):
            target = small / path.relative_to(tree)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
    here, there = tmp_path / "here", tmp_path / "there"
    script = (
        "from jepa3d.data.prepare import prepare\n"
        "from jepa3d.config import PrepareSettings\n"
        "if __name__ == '__main__':\n"
        f"    for folder, workers in (({str(here)!r}, 0), ({str(there)!r}, 2)):\n"
        "        settings = PrepareSettings(shape=(8, 32, 32), workers=workers)\n"
        f"        prepare({str(small)!r}, folder, settings)\n"
    )
    path = tmp_path / "run.py"
    path.write_text(script)
    root = str(prepare_module.__file__).rsplit("/jepa3d/", 1)[0]
    subprocess.run([sys.executable, path], check=True, env=os.environ | {"PYTHONPATH": root})
    assert rows_of(here) == rows_of(there)
    one, other = VolumeSource(here, "train"), VolumeSource(there, "train")
    assert len(one) == len(other) > 0 and one.fingerprint == other.fingerprint
    for index in range(len(one)):
        np.testing.assert_array_equal(one[index]["volume"], other[index]["volume"])


def copy_of(tree, tmp_path):
    copy = tmp_path / "tree"
    shutil.copytree(tree, copy)
    return copy


def test_added_changed_and_removed_files_are_followed(tree, tmp_path):
    copy, folder = copy_of(tree, tmp_path), tmp_path / "records"
    extra = next(copy.rglob("1007_*_r_*.dcm"))
    hidden = extra.rename(tmp_path / "extra.dcm")
    first = prepare(copy, folder, SMALL)
    hidden.rename(extra)
    second = prepare(copy, folder, SMALL)
    assert (first.volumes, second.volumes, second.new_volumes) == (15, 16, 1)
    victim = next(copy.rglob("1005_*_l_*.dcm"))
    dataset = dcmread(victim)
    dataset.PixelData = bytes(255 - value for value in dataset.PixelData)
    dataset.save_as(victim)
    assert prepare(copy, folder, SMALL).volumes == 16
    source = VolumeSource(folder, "train")
    name = victim.relative_to(copy).as_posix()
    (place,) = [i for i, row in enumerate(source.rows) if row["path"] == name]
    assert source[place]["volume"].mean() > 128 > source[place - 1]["volume"].mean()
    for path in copy.rglob("100[1-3]_*.dcm"):
        path.unlink()
    (copy / "retinal_oct" / "manifest.tsv").unlink()
    third = prepare(copy, folder, SMALL)
    source = VolumeSource(folder, "train")
    assert third.volumes == 10 and len(source) == third.splits["train"]
    assert [source[i]["volume"].shape for i in range(len(source))] == [(8, 32, 32)] * len(source)


def test_touching_a_file_without_changing_it_costs_nothing(tree, tmp_path):
    copy, folder = copy_of(tree, tmp_path), tmp_path / "records"
    prepare(copy, folder, SMALL)
    os.utime(next(copy.rglob("1002_*_r_*.dcm")))
    assert prepare(copy, folder, SMALL).new_volumes == 0


class Interrupted(Exception):
    pass


def test_an_interrupted_run_resumes_and_ends_the_same(tree, prepared, tmp_path):
    folder = tmp_path / "records"

    def stop_at_eleven(done, total, row):
        if done == 11:
            raise Interrupted

    with pytest.raises(Interrupted):
        prepare(tree, folder, SMALL, stop_at_eleven)
    with pytest.raises(InputError, match="interrupted"):
        VolumeSource(folder, "train")
    account = prepare(tree, folder, SMALL)
    assert 0 < account.new_volumes < 16 and account.volumes == 16
    ours = {r["path"]: r["sha256"] for r in rows_of(folder)}
    assert ours == {r["path"]: r["sha256"] for r in rows_of(prepared[0])}
    assert not list(folder.glob(".partial*")) and not (folder / "journal.jsonl").exists()


def test_a_killed_run_leaves_no_half_shard_behind(tree, prepared, tmp_path):
    folder = tmp_path / "records"
    shutil.copytree(prepared[0], folder)
    rows = rows_of(folder)
    kept = [row for row in rows if not (row["split"] == "train" and row["shard"] == 1)]
    text = "".join(json.dumps(row) + "\n" for row in kept)
    (folder / "journal.jsonl").write_text(text + '{"path": "torn')
    (folder / "index.jsonl").unlink()
    (folder / ".partial-oct_volumes-train.array_record-00009").write_bytes(b"half")
    account = prepare(tree, folder, SMALL)
    assert account.volumes == 16 and account.new_volumes == 4
    assert len(VolumeSource(folder, "train")) == account.splits["train"]


def test_the_folder_is_a_tensorflow_dataset_without_tensorflow(prepared):
    script = f"""
import sys
import tensorflow_datasets as tfds
source = tfds.builder_from_directory({str(prepared[0])!r}).as_data_source("train")
record = source[len(source) - 1]
assert record["volume"].shape == (8, 32, 32) and record["volume"].dtype == "uint8"
assert record["foreground"].shape == (2, 2, 2) and record["scanner"]
assert "tensorflow" not in sys.modules
print(len(source))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(VolumeSource(prepared[0], "train"))


def test_table_names_scanners_reasons_and_totals(prepared):
    table = prepared[1].table()
    for word in (
        "topcon_triton",
        "truncated_pixel_data 1",
        "scan_pattern 1",
        "20 files, 16 volumes",
    ):
        assert word in table


def test_verdict_judges_faults_only_and_only_named_scanners(tree, tmp_path):
    strict = dataclasses.replace(SMALL, minimum_ok_fraction=0.9)
    account = prepare(tree, tmp_path / "records", strict)
    assert account.below_floor == ["topcon_maestro2", "zeiss_cirrus"]
    assert "80%" in account.fault() and (tmp_path / "records" / "index.jsonl").exists()
    assert account.scanners["heidelberg_spectralis"].ok_fraction == 1.0  # a radial scan is no fault


@pytest.mark.parametrize(
    ("make_input", "message"),
    [(lambda p: p / "absent", "does not exist"), (lambda p: p, "holds no DICOM")],
)
def test_missing_and_empty_input_are_one_sentence(tmp_path, make_input, message):
    with pytest.raises(InputError, match=message):
        prepare(make_input(tmp_path), tmp_path / "out", SMALL)


def test_a_single_participant_is_for_training(tree, tmp_path):
    for person in ("1001", "1005"):
        only = next((tree / "retinal_oct").rglob(f"{person}_spectralis_ppol*_r_*.dcm"))
        for seed in range(4):
            alone = tmp_path / f"{person}_{seed}"
            alone.mkdir()
            shutil.copy(only, alone)
            settings = dataclasses.replace(SMALL, split_seed=seed, eval_fraction=0.9)
            assert prepare(alone, tmp_path / f"out_{person}_{seed}", settings).splits == {
                "train": 1
            }


def test_another_input_never_replaces_the_records_of_the_first(tree, prepared, tmp_path):
    shutil.copy(next(tree.rglob("1001_*.dcm")), tmp_path / "other.dcm")
    with pytest.raises(InputError, match="records of other inputs"):
        prepare(tmp_path, prepared[0], SMALL)
    assert len(VolumeSource(prepared[0], "train")) == 10


def test_other_settings_and_foreign_folders_are_refused(tree, prepared, tmp_path):
    other = dataclasses.replace(SMALL, shape=(8, 64, 64))
    with pytest.raises(InputError, match=r"other settings \(shape\)"):
        prepare(tree, prepared[0], other)
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="other files"):
        prepare(tree, tmp_path, SMALL)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        prepare(tree, tmp_path / "file" / "out", SMALL)


def test_a_second_prepare_into_one_folder_is_refused_in_one_sentence(tree, tmp_path):
    def second(done, total, row):
        with pytest.raises(InputError, match=r"another run is at work in .*out") as caught:
            prepare(tree, tmp_path / "out", SMALL)
        assert "\n" not in str(caught.value)
        raise Interrupted

    with pytest.raises(Interrupted):
        prepare(tree, tmp_path / "out", SMALL, second)
    assert prepare(tree, tmp_path / "out", SMALL).volumes == 16  # the lock went with its run


@pytest.mark.parametrize(
    "change", [{"mode": "stretch"}, {"shape": (8, 30, 32)}, {"workers": -1}, {"eval_fraction": 1.0}]
)
def test_contradicting_settings_are_config_errors(tree, tmp_path, change):
    with pytest.raises(ConfigError):
        prepare(tree, tmp_path / "out", dataclasses.replace(SMALL, **change))


def test_hash_split_is_stable_under_additions_and_has_the_right_share():
    people = {str(n): True for n in range(2000)}
    splits = assign_splits(people, {}, {}, 0.1, seed=3)
    assert abs(sum(s == "eval" for s in splits.values()) - 200) < 45
    more = assign_splits(people | {"new": True}, {}, {}, 0.1, seed=3)
    assert all(more[name] == split for name, split in splits.items())
    assert assign_splits(people, {}, {}, 0.1, seed=4) != splits


def test_small_sets_still_get_an_eval_participant():
    for seed in range(20):
        splits = assign_splits({"a": True, "b": True, "c": False}, {}, {}, 0.1, seed)
        assert "eval" in splits.values()
        assert "train" in (splits["a"], splits["b"]) or splits["c"] == "train"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mode": "crop"}, "prepare.mode = 'crop' must be window or resize"),
        ({"patch": (0, 8, 8)}, "divisible by the patch"),
        ({"patch": (5, 16, 16)}, "divisible by the patch"),
        ({"window_mm": (6.0, 0.0, 6.0)}, "above 0"),
        ({"window_mm": (6.0, float("nan"), 6.0)}, "finite"),
        ({"eval_fraction": 1.0}, "prepare.eval_fraction = 1"),
        ({"corrupt_fraction": -0.1}, "prepare.corrupt_fraction"),
        ({"records_per_shard": 0}, "prepare.records_per_shard = 0"),
        ({"workers": 10**9}, "prepare.workers"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_made(tmp_path, changes, sentence):
    with pytest.raises(ConfigError) as caught:
        prepare(tmp_path, tmp_path / "records", dataclasses.replace(SMALL, **changes))
    assert sentence in str(caught.value)
    assert not (tmp_path / "records").exists()
