"""Babysit: every cause has its own answer, and progress is a newer checkpoint."""

from __future__ import annotations

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
