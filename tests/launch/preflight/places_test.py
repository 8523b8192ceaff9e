"""Work folder, region, host memory and disk."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from launch.preflight import places
from launch.preflight.topology import topology
from training.config import CheckpointConfig

V4_8, V4_32 = topology("v4-8"), topology("v4-32")
GIB = 2**30


def array(size, per_device):
    return {"path": "params/x", "bytes": size, "bytes_per_device": per_device}


def test_a_place_is_left_as_it_was_found(tmp_path):
    row = places.workdir_row(tmp_path / "runs" / "new", hosts=1)
    assert row.state == "pass" and not list(tmp_path.iterdir())


def test_a_bucket_serves_every_host(bucket):
    assert places.workdir_row(bucket, hosts=4).state == "pass"


def test_a_disk_of_this_machine_is_a_warning_for_several_hosts(tmp_path):
    row = places.workdir_row(tmp_path, hosts=4)
    assert row.state == "warn" and "gs://BUCKET/FOLDER" in row.sentence


def test_a_folder_that_cannot_be_made_is_a_failure(tmp_path):
    (tmp_path / "file").write_text("")
    row = places.workdir_row(tmp_path / "file" / "run", hosts=1)
    assert row.state == "FAIL" and "cannot be written" in row.sentence


@pytest.mark.parametrize(
    ("location", "zone", "state"),
    [
        ("us-central2", None, "pass"),  # where every v4 is
        ("us-central2", "us-central2-b", "pass"),
        ("us", "us-central2-b", "pass"),
        ("europe-west4", None, "FAIL"),
        ("us-central1", "us-central2-b", "FAIL"),
    ],
)
def test_bucket_and_slice_belong_into_one_region(monkeypatch, location, zone, state):
    monkeypatch.setattr(places, "bucket_location", lambda path: location)
    row = places.region_row("gs://bucket/run", V4_32, zone)
    assert row is not None and row.state == state


def test_the_region_of_a_bucket_is_asked_for(bucket):
    assert places.bucket_location(bucket) == places.bucket_location(bucket) != ""


def test_an_unknown_zone_is_said_and_a_disk_has_no_region(tmp_path):
    row = places.region_row("gs://bucket/run", topology("v5p-8"), None)
    assert row is not None and row.state == "skipped" and "--zone" in row.sentence
    assert places.region_row(tmp_path, V4_32, None) is None


def test_a_host_holds_each_part_of_the_state_once():
    # Replicated: once. Split over all 16 devices: the parts of its four.
    assert places.host_share([array(160, 160)], V4_32) == 160
    assert places.host_share([array(160, 10)], V4_32) == 40
    assert places.host_share([array(160, 40)], V4_8) == 160


@pytest.mark.parametrize(("gib", "state"), [(90, "pass"), (92, "FAIL")])
def test_a_save_needs_three_and_a_half_times_the_share(gib, state):
    row = places.host_memory_row([array(gib * GIB, gib * GIB)], V4_32)
    assert row.state == state and row.facts["needed_gib"] == pytest.approx(3.5 * gib)


def test_the_checkpoints_that_are_kept_must_fit_the_disk(tmp_path, monkeypatch):
    config = CheckpointConfig(keep_latest=3, keep_every=100, best_metric="loss")
    free = SimpleNamespace(free=15 * GIB)
    monkeypatch.setattr(places.shutil, "disk_usage", lambda path: free)
    # Latest, best and ten of 1,000 updates, and one that is being written.
    row = places.disk_row([array(GIB, GIB)], 1000, config, tmp_path / "not" / "there")
    assert row.state == "pass" and row.facts["kept"] == 14
    free.free -= 1
    row = places.disk_row([array(GIB, GIB)], 1000, config, tmp_path)
    assert row.state == "FAIL" and "free space" in row.sentence


def test_a_bucket_is_never_full(bucket):
    row = places.disk_row([array(GIB, GIB)], 100, CheckpointConfig(), os.fspath(bucket))
    assert row.state == "pass" and "in a bucket" in row.sentence
