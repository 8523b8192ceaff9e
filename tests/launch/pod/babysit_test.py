"""Babysit: every cause has its own answer, and progress is a newer checkpoint."""

from __future__ import annotations

import pytest

TRAIN = "--command=train --config configs/x.py --workdir {}"
FAST = ("--poll=0.05", "--wait=20")


def babysit(cloud, *more, code=0):
    command = TRAIN.format(cloud.folder / "work")
    return cloud("babysit", command, *FAST, *more, code=code)


def starts(cloud) -> int:
    return int((cloud.folder / "starts").read_text())


def test_from_nothing_it_creates_sets_up_pushes_starts_and_ends_with_the_run(cloud):
    cloud.mode("done")
    said = babysit(cloud)
    assert "eyes is ABSENT: it is made again" in said and "the run is done" in said
    assert starts(cloud) == 1


def test_a_preempted_slice_is_deleted_made_again_and_gets_the_same_tree(cloud):
    cloud.mode("forever", "forever", "done")
    # The first describe finds nothing; some looks later the slice is taken away, twice.
    cloud.fault("preempt-5")
    cloud.fault("preempt-12")
    said = babysit(cloud)
    assert said.count("eyes is PREEMPTED: it is made again") == 2
    assert starts(cloud) == 3
    assert len(cloud.calls("create")) == 3 and len(cloud.calls("delete")) == 3
    commit = said.partition(" is on all 2 workers")[0].splitlines()[-1]
    assert said.count(f"{commit} is on all 2 workers") == 3


@pytest.mark.slow
def test_a_worker_out_of_order_has_the_slice_made_again(cloud):
    cloud.mode("busy", "done")
    said = babysit(cloud)
    assert "worker 1: a worker is out of order (open(/dev/vfio/0): Device or resource busy)" in said
    assert len(cloud.calls("create")) == 2


def test_a_refused_run_is_not_started_again(cloud):
    cloud.mode("refused")
    said = babysit(cloud, code=2)
    assert "worker 0 ended for good: podvision train: config.batch_size = 7" in said
    assert starts(cloud) == 1


def test_crashes_without_a_newer_checkpoint_end_it(cloud, monkeypatch):
    monkeypatch.setattr("launch.pod.babysit.FIRST_PAUSE", 0.01)
    cloud.mode("crash")
    said = babysit(cloud, "--restarts=2", code=2)
    assert "failed 3 times without any checkpoint" in said and "RuntimeError: boom" in said
    assert starts(cloud) == 3


def test_a_crash_after_a_newer_checkpoint_does_not_count_against_it(cloud, monkeypatch):
    monkeypatch.setattr("launch.pod.babysit.FIRST_PAUSE", 0.01)
    cloud.mode("progress-crash", "progress-crash", "progress-crash", "done")
    assert "the run is done" in babysit(cloud, "--restarts=1")
    assert starts(cloud) == 4


def test_a_run_that_was_told_to_stop_goes_on(cloud):
    cloud.ready("stopped", "done")
    assert "the run is done" in babysit(cloud)
    assert starts(cloud) == 2


def test_a_zone_without_capacity_and_a_gcloud_that_fails_are_tried_again(cloud, monkeypatch):
    monkeypatch.setattr("launch.pod.babysit.FIRST_PAUSE", 0.01)
    cloud.mode("done")
    cloud.fault("full", times=2)
    cloud.fault("offline", times=2)
    said = babysit(cloud)
    assert said.count("There is no more capacity in the zone; tried again") == 2
    assert said.count("the server could not be reached; tried again") == 2
    assert "the run is done" in said and starts(cloud) == 1


def test_a_wait_for_capacity_has_an_end(cloud, monkeypatch):
    monkeypatch.setattr("launch.pod.babysit.FIRST_PAUSE", 0.01)
    cloud.mode("done")
    cloud.fault("full", times=1000)
    assert "no more capacity in the zone; it has been so for" in babysit(
        cloud, "--wait=0.5", code=2
    )


def test_what_no_second_try_can_cure_ends_at_once(cloud):
    cloud.mode("done")
    cloud.fault("denied")
    assert "PERMISSION_DENIED" in babysit(cloud, code=2)
    assert len(cloud.calls("describe")) == 1


@pytest.mark.slow
def test_a_worker_that_is_silent_once_is_asked_again(cloud):
    cloud.ready("stopped", "done")
    cloud.fault("dead-1")
    said = babysit(cloud)
    assert "worker 1 of 2 does not answer" in said and "the run is done" in said
    assert len(cloud.calls("create")) == 1


@pytest.mark.slow
def test_a_worker_that_stays_silent_has_the_slice_made_again(cloud):
    cloud.ready("done")
    cloud.fault("dead-1", times=3)
    said = babysit(cloud)
    assert "the slice is made again" in said and "eyes is ABSENT: it is made again" in said
    assert "the run is done" in said and starts(cloud) == 1
    assert len(cloud.calls("create")) == 2


@pytest.mark.slow
def test_a_slice_taken_away_while_it_is_set_up_is_no_failure_of_the_run(cloud):
    cloud.mode("done")
    # Describes: of the first look (absent), of the wait, of the look after a setup that failed.
    cloud.fault("preempt-2")
    cloud.fault("dead-0", times=2)
    said = babysit(cloud, "--restarts=0")
    assert "the run is done" in said and len(cloud.calls("create")) == 2


@pytest.mark.slow
def test_workers_that_go_on_without_one_that_failed_are_stopped(cloud, monkeypatch):
    monkeypatch.setattr("launch.pod.babysit.FIRST_PAUSE", 0.01)
    cloud.mode("alone", "done")
    said = babysit(cloud)
    assert "worker 1 does not run and others do; they are stopped" in said
    assert "the run is done" in said and starts(cloud) == 2


@pytest.mark.slow
def test_a_start_that_reached_only_some_workers_is_made_up_for(cloud):
    cloud.ready("stopped", "done")
    cloud.fault("dead-1", later=1)
    cloud("start", TRAIN.format(cloud.folder / "work"), code=2)
    assert "the run is done" in babysit(cloud)
    for worker in (0, 1):
        assert (cloud.home(worker) / ".pod/run/attempt-2/rc").exists()


def test_what_ends_it_says_that_the_slice_still_costs(cloud):
    cloud.mode("refused")
    assert "eyes still stands and costs until podvision pod delete" in babysit(cloud, code=2)
