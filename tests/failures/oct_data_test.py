"""Failures 6 and 7: a spacing that was not found, and compressed or damaged data taken as sound."""

from __future__ import annotations

import json
import shutil
import tracemalloc

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from jepa3d.config import PrepareSettings
from jepa3d.data import VolumeSource, dicom, geometry
from jepa3d.data.prepare import prepare
from jepa3d.data.resample import to_grid
from jepa3d.phantom import retina
from jepa3d.synthetic import SCANNERS, dicom_volume, write_tree
from training.errors import EXIT_DATA, EXIT_GUARD, EXIT_USAGE, InputError
from training.record.metrics import read_metrics

SHAPE = ("--shape", "8,32,32", "--patch", "4,8,8", "--workers", "0")


def rows_of(folder) -> list[dict]:
    """Rows of the index but for those of tables."""
    rows = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
    return [row for row in rows if row["reason"] != "other_file"]


def spacing_from_the_frames_only(shared, per_frame, top):
    """The original reader: the shared groups are not looked at, and what is not found is 1 mm."""
    items = [group.get("PixelMeasuresSequence") for group in per_frame]
    found = [geometry._pixel_spacing(item[0]) for item in items if item]
    value = found[0] if found else [1.0, 1.0]
    return np.asarray([value]), "per_frame_functional_groups", []


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree"), participants=4, faulty_files=False)


def test_6_a_spacing_missed_in_the_shared_groups_is_refused_and_the_command_ends_with_4(
    tree, tmp_path, monkeypatch, podvision
):
    monkeypatch.setattr(geometry, "_in_plane", spacing_from_the_frames_only)
    result = podvision("prepare", "jepa3d", "--input", tree, "--output", tmp_path / "out", *SHAPE)
    assert result.code == EXIT_DATA
    assert "below 50% for heidelberg_spectralis 0%, topcon_maestro2 0%" in result.err
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 8
    for row in rows:
        if row["scanner"] == "topcon_triton":  # the scanner that does store it per frame
            assert row["status"] == "ok"
            continue
        assert row["reason"] == "spacing_out_of_range"
        assert "axial spacing 1 mm" in row["detail"] and row["split"] is None


def test_6_records_of_1_mm_voxels_are_refused_before_the_first_update(
    tree, tmp_path, monkeypatch, podvision, tiny_recipe
):
    with monkeypatch.context() as fault:
        fault.setattr(geometry, "_in_plane", spacing_from_the_frames_only)
        fault.setattr(dicom, "check_spacing", lambda *_: None)
        settings = PrepareSettings(shape=(8, 32, 32), patch=(4, 8, 8), workers=0)
        prepare(tree, tmp_path / "out", settings)
    assert any(row["spacing_mm"][1] == 1.0 for row in rows_of(tmp_path / "out"))
    recipe = tiny_recipe(tmp_path / "out")
    result = podvision("train", "--config", recipe, "--workdir", tmp_path / "run")
    assert result.code == EXIT_GUARD
    assert "mm, which no OCT scanner has; prepare the data again [guard spacing;" in result.err
    steps = [row for row in read_metrics(tmp_path / "run") if "train/loss" in row]
    assert steps == [], "no update was made"


@pytest.mark.parametrize("window_mm", [None, (6.0, 1.92, 6.0)], ids=["resize", "window"])
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (1e-6, 1e-6, 1e-6), (90.0, 900.0, 1e-4)])
def test_6_whatever_the_spacing_the_resampled_volume_has_the_size_of_the_grid(
    window_mm, spacing_mm
):
    pixels = retina(np.random.default_rng(0), (16, 192, 128))
    tracemalloc.start()
    try:
        grid = to_grid(pixels, spacing_mm, shape=(8, 32, 32), patch=(4, 8, 8), window_mm=window_mm)
        assert grid.volume.shape == (8, 32, 32)
    except dicom.SkipVolume as skip:
        assert skip.reason == "constant_volume"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 2**20  # the volume itself has 0.4 MB


def write_volumes(folder, damage_of) -> None:
    """Six volumes of six people; `damage_of(number)` names what is done to each."""
    folder.mkdir()
    for number in range(6):
        generator = np.random.default_rng(number)
        pixels = retina(generator, (16, 192, 128))
        dataset = dicom_volume(
            pixels, SCANNERS[0], participant=f"p{number}", laterality="R", uid=f"2.25.{number + 7}"
        )
        damage = damage_of(number)
        if damage in ("rle", "jpeg2000"):
            syntax = RLELossless if damage == "rle" else JPEG2000Lossless
            dataset.compress(syntax, generate_instance_uid=False)
        path = folder / f"{number}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        if damage in ("rle", "jpeg2000"):
            relabel_as_uncompressed(path)
        elif damage == "truncated":
            path.write_bytes(path.read_bytes()[:-20_000])
        elif damage == "noise":
            path.write_bytes(generator.bytes(50_000))


def relabel_as_uncompressed(path) -> None:
    """The original "repair": the syntax says uncompressed, the bytes stay compressed."""
    dataset = dcmread(path)
    data = dataset.PixelData
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    del dataset.PixelData
    size = dataset.NumberOfFrames * dataset.Rows * dataset.Columns
    # Padded to at least the expected length, so that no simple count of bytes gives it away.
    dataset.add_new("PixelData", "OB", data + b"\0" * max(size - len(data), 0))
    dataset.save_as(path, enforce_file_format=True)


REASONS = {
    "rle": ("corrupt_frames",),
    "jpeg2000": ("corrupt_frames",),
    "truncated": ("truncated_pixel_data",),
    "noise": ("not_dicom", "missing_preamble"),
}


@pytest.mark.parametrize("damage", REASONS)
def test_7_a_file_that_is_not_what_it_says_is_left_out_with_its_reason(tmp_path, podvision, damage):
    write_volumes(tmp_path / "in", lambda number: damage if number == 2 else "")
    out = tmp_path / "out"
    result = podvision("prepare", "jepa3d", "--input", tmp_path / "in", "--output", out, *SHAPE)
    assert result.code == 0, result.err
    rows = {row["path"]: row for row in rows_of(out)}
    assert len(rows) == 6 and [row["status"] for row in rows.values()].count("ok") == 5
    assert rows["2.dcm"]["reason"] in REASONS[damage] and rows["2.dcm"]["detail"]
    sources = [VolumeSource(out, split) for split in ("train", "eval")]
    kept = [row["path"] for source in sources for row in source.rows]
    assert len(kept) == 5 and "2.dcm" not in kept


def test_7_too_many_such_files_end_the_command_with_4_and_all_are_in_the_account(
    tmp_path, podvision
):
    kinds = (*REASONS, "", "")
    write_volumes(tmp_path / "in", lambda number: kinds[number])
    out = tmp_path / "out"
    result = podvision("prepare", "jepa3d", "--input", tmp_path / "in", "--output", out, *SHAPE)
    assert result.code == EXIT_DATA and "Traceback" not in result.err
    assert "share of usable files is below 50% for heidelberg_spectralis" in result.err
    rows = rows_of(out)
    assert len(rows) == 6 and all(row["status"] == "ok" or row["reason"] for row in rows)
    assert "6 files, 2 volumes" in result.out


def damage_records(folder, copy, split, records) -> None:
    """A copy of prepared records with flipped bytes in the middle of some of them."""
    shutil.copytree(folder, copy)
    (shard,) = copy.glob(f"*-{split}.array_record-*")
    data = bytearray(shard.read_bytes())
    sound = VolumeSource(folder, split)
    body = np.flatnonzero(np.frombuffer(bytes(data), np.uint8))
    for place in np.linspace(0.1, 0.9, 200):
        broken = [i for i in range(len(sound)) if not readable(copy, split, i)]
        if len(broken) >= records:
            return
        data[int(body[int(place * len(body))])] ^= 0xFF
        shard.write_bytes(data)
    raise AssertionError("no record could be damaged")


def readable(folder, split, index) -> bool:
    try:
        VolumeSource(folder, split)[index]
    except InputError:
        return False
    return True


def test_7_a_record_damaged_on_disk_is_replaced_counted_and_said(
    oct_records, tmp_path, podvision, tiny_recipe
):
    damage_records(oct_records, tmp_path / "records", "train", 1)
    recipe = tiny_recipe(tmp_path / "records")
    result = podvision(
        "train", "--config", recipe, "--workdir", tmp_path / "run",
        "--config.loader.max_replaced_fraction=0.9",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "replaced example" in result.err and "is damaged" in result.err
    rows = read_metrics(tmp_path / "run")
    assert max(row.get("data/replaced", 0) for row in rows) > 0
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert len(losses) == 12 and np.all(np.isfinite(losses))


@pytest.mark.slow
def test_7_damaged_records_above_the_threshold_end_the_run_with_4(
    oct_records, tmp_path, podvision, tiny_recipe
):
    damage_records(oct_records, tmp_path / "records", "train", 1)
    recipe = tiny_recipe(tmp_path / "records")
    # The share is judged from 100 examples on.
    longer = "--config.total.updates=40"
    result = podvision("train", "--config", recipe, "--workdir", tmp_path / "run", longer)
    assert result.code == EXIT_DATA
    assert "above config.loader.max_replaced_fraction = 0.01" in result.err
    guards = json.loads((tmp_path / "run" / "guards.json").read_text())
    (verdict,) = [row for row in guards if row["name"] == "data-replaced"]
    assert not verdict["passed"] and "could not be read" in verdict["sentence"]


def test_7_a_damaged_record_is_never_left_out_of_an_evaluation(
    oct_records, tmp_path, podvision, tiny_recipe
):
    damage_records(oct_records, tmp_path / "records", "eval", 1)
    recipe = tiny_recipe(tmp_path / "records")
    result = podvision("train", "--config", recipe, "--workdir", tmp_path / "run")
    assert result.code == EXIT_USAGE and "Traceback" not in result.err
    assert "is damaged" in result.err and "prepare again" in result.err
    assert not (tmp_path / "run" / "eval" / "0.json").exists()
