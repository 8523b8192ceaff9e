"""Packed files are read as if they were unpacked, within bounds."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jepa3d.config import PrepareSettings
from jepa3d.data import SkipVolume, archives, read_volume
from jepa3d.data.index import read_rows
from jepa3d.data.prepare import prepare
from tests.jepa3d.data.oct_files import make_dataset, random_pixels, save
from tests.jepa3d.data.one_volume_test import images

SETTINGS = PrepareSettings(shape=(8, 32, 32), patch=(4, 16, 16), workers=0)


def packed(target: Path, folder: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(folder))
    return target


@pytest.fixture
def inside(tmp_path) -> Path:
    (tmp_path / "inside").mkdir()
    return tmp_path / "inside"


@pytest.fixture
def packs(tmp_path) -> Path:
    (tmp_path / "packs").mkdir()
    return tmp_path / "packs"


def test_a_packed_volume_is_the_volume(inside, packs):
    path = save(make_dataset(random_pixels()), inside)
    plain = read_volume(path)
    (packs / "a.dcm.gz").write_bytes(gzip.compress(path.read_bytes()))
    packed(packs / "b.zip", inside)
    for name in ("a.dcm.gz", "b.zip"):
        found = read_volume(packs / name)
        np.testing.assert_array_equal(found.pixels, plain.pixels)
        assert found.spacing_mm == plain.spacing_mm


def test_volumes_of_an_archive_have_rows_and_persons_of_their_own(inside, packs, tmp_path):
    for person in ("p1", "p2"):
        pixels = random_pixels(seed=int(person[1]))
        save(make_dataset(pixels, participant=person, uid=f"2.25.{person[1]}"), inside / person)
    images(inside / "scan_OS", [f"{n}.png" for n in range(6)])
    packed(packs / "all.zip", inside)
    save(make_dataset(random_pixels(seed=9), participant="p3", uid="2.25.9"), packs)
    settings = SETTINGS.__class__(**{**SETTINGS.__dict__, "image_spacing_mm": (0.1, 0.004, 0.01)})
    prepare(packs, tmp_path / "out", settings)
    rows = {row["path"]: row for row in read_rows(tmp_path / "out" / "index.jsonl")}
    assert {path: row["status"] for path, row in rows.items()} == dict.fromkeys(
        [
            "all.zip#p1/volume.dcm",
            "all.zip#p2/volume.dcm",
            "all.zip#scan_OS",
            "volume.dcm",
        ],
        "ok",
    )
    assert rows["all.zip#p2/volume.dcm"]["participant"] == "p2"
    assert rows["all.zip#scan_OS"]["laterality"] == "L"
    assert prepare(packs, tmp_path / "out", settings).new_volumes == 0


def test_a_packed_copy_of_a_volume_is_a_duplicate(inside, packs, tmp_path):
    path = save(make_dataset(random_pixels(), participant="p1"), inside)
    (packs / "a.dcm.gz").write_bytes(gzip.compress(path.read_bytes()))
    (packs / "b.dcm").write_bytes(path.read_bytes())
    prepare(packs, tmp_path / "out", SETTINGS)
    rows = {row["path"]: row for row in read_rows(tmp_path / "out" / "index.jsonl")}
    assert rows["b.dcm"]["reason"] == "duplicate"
    assert rows["a.dcm.gz"]["participant"] == "p1"


def damaged(inside: Path, packs: Path, kind: str) -> Path:
    path = packs / "x.zip"
    save(make_dataset(random_pixels()), inside)
    if kind == "empty":
        zipfile.ZipFile(path, "w").close()
    elif kind == "nested":
        packed(inside / "inner.zip", inside)
        (inside / "volume.dcm").unlink()
        packed(path, inside)
    elif kind == "locked":
        packed(path, inside)
        data = bytearray(path.read_bytes())
        for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            data[data.index(mark) + place] |= 1  # the bit that says "encrypted"
        path.write_bytes(data)
    else:
        data = packed(path, inside).read_bytes()
        path.write_bytes(data[: len(data) // 2])
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cut", "unreadable_file"),
        ("locked", "unreadable_file"),
        ("empty", "unsupported_format"),
        ("nested", "unsupported_format"),
    ],
)
def test_archives_without_a_volume_are_rows_with_a_reason(inside, packs, tmp_path, kind, reason):
    path = damaged(inside, packs, kind)
    with pytest.raises(SkipVolume) as caught:
        read_volume(path)
    assert caught.value.reason == reason
    save(make_dataset(random_pixels()), packs)
    prepare(packs, tmp_path / "out", SETTINGS)
    rows = {row["path"]: row["reason"] for row in read_rows(tmp_path / "out" / "index.jsonl")}
    assert rows == {"x.zip": reason, "volume.dcm": None}


def test_nothing_is_unpacked_that_is_larger_than_any_volume(inside, packs, monkeypatch):
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 10**6)
    (packs / "bomb.dcm.gz").write_bytes(gzip.compress(bytes(10**7)))
    (inside / "bomb.dcm").write_bytes(bytes(10**7))
    packed(packs / "bomb.zip", inside)
    for name in ("bomb.dcm.gz", "bomb.zip"):
        with pytest.raises(SkipVolume) as caught:
            read_volume(packs / name)
        assert caught.value.reason == "too_large"


def test_a_member_stays_inside_whatever_its_name(inside, packs, tmp_path):
    path = save(make_dataset(random_pixels()), inside)
    with zipfile.ZipFile(packs / "a.zip", "w") as archive:
        archive.write(path, "../../../../escaped.dcm")
    read_volume(packs / "a.zip")
    assert not list(tmp_path.parent.parent.rglob("escaped.dcm"))
