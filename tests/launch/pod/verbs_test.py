"""The verbs against a fake gcloud that runs the scripts as they are, with real processes."""

from __future__ import annotations

import os
import signal

import pytest

TRAIN = "--command=train --config configs/x.py --workdir gs://b/run"


def test_from_nothing_to_a_run_that_stops_and_goes_on(cloud):
    cloud.ready("forever")
    assert "attempt-1" in cloud("start", TRAIN)
    said = cloud.until("running", "training on worker 1 of 2")
    assert "it runs" in said
    log = cloud("logs", "--all")
    assert "[worker 0]" in log and "launch.cli train --config configs/x.py" in log
    assert "training on worker 0 of 2" in cloud("logs")
    said = cloud("stop")
    assert "worker 0: stopped, exit code 0" in said and "worker 1: stopped, exit code 0" in said
    assert "asked to stop: all is saved" in cloud("status")
    assert "worker 1: started (attempt-2)" in cloud("start", TRAIN)
    cloud("stop")


def test_a_second_start_is_told_that_it_runs(cloud):
    cloud.ready("forever")
    cloud("start", TRAIN)
    said = cloud("start", TRAIN)
    assert "worker 0: running (attempt-1)" in said
    assert len(list(cloud.home(0).glob(".pod/run/attempt-*"))) == 1
    assert "stop it before a push" in cloud("push", code=2)
    cloud("stop")


def test_a_command_that_gcloud_repeats_starts_one_training(cloud):
    cloud.ready("forever")
    cloud.fault("ssh-255")
    cloud("start", TRAIN)
    for worker in (0, 1):
        assert len(list(cloud.home(worker).glob(".pod/run/attempt-*"))) == 1
    cloud("stop")


def test_a_process_that_does_not_end_is_killed_and_named(cloud):
    cloud.ready("stubborn")
    cloud("start", TRAIN)
    cloud.until("training on worker 1")
    assert "worker 0, 1 did not end within 1 s and was killed" in cloud("stop", "--grace=1", code=2)
    cloud.status_code = 2
    assert "137" in cloud.until("ended")


def test_a_worker_that_does_not_answer_is_named(cloud):
    cloud.ready("forever")
    cloud.fault("dead-1")
    assert "no answer to status from worker 1 of 2" in cloud("start", TRAIN, code=2)
    assert not (cloud.home(0) / ".pod/run/attempt-1").exists(), "all or none"
    cloud.fault("dead-1", later=1)
    assert "no answer to start from worker 1 of 2" in cloud("start", TRAIN, code=2)
    assert "the workers disagree" not in cloud("stop")


def test_workers_of_different_commits_are_refused_by_status(cloud):
    cloud.ready("done")
    cloud("start", TRAIN)
    cloud.until("it is done")
    (cloud.home(1) / "runs" / "run" / "commit").write_text("0" * 40)
    assert "the workers disagree" in cloud("status", code=2)


def test_a_worker_that_failed_while_others_run_is_named_by_status(cloud):
    cloud.ready("forever")
    cloud("start", TRAIN)
    cloud.until("training on worker 1 of 2")
    pid = int((cloud.home(1) / ".pod/run/attempt-1/pid").read_text())
    os.killpg(pid, signal.SIGKILL)
    cloud.status_code = 2
    assert "worker 1 was killed while others run" in cloud.until("ended")
    cloud("stop")


def test_start_before_push_is_refused(cloud):
    cloud.mode("forever")
    cloud("create")
    assert "push it first" in cloud("start", TRAIN, code=2)


def test_changes_that_are_not_committed_are_pushed_only_if_allowed(cloud):
    cloud.mode("forever")
    cloud("create")
    with open(cloud.source / "setup.cfg", "a") as file:
        file.write("# changed\n")
    assert "not committed" in cloud("push", code=2)
    cloud("push", "--allow-dirty")
    assert (cloud.home(1) / "runs/run/src/setup.cfg").read_text().endswith("# changed\n")
    commit = (cloud.home(0) / "runs/run/commit").read_text().strip()
    assert len(commit) == 40


def test_an_archive_that_arrived_damaged_is_refused(cloud, monkeypatch):
    from launch.pod.slices import Slice

    cloud.mode("forever")
    cloud("create")
    whole = Slice.copy

    def damaged(self, shell, source, target, seconds=900.0):
        whole(self, shell, source, target, seconds)
        with open(cloud.home(1) / target, "ab") as file:
            file.write(b"x")

    monkeypatch.setattr(Slice, "copy", damaged)
    assert "worker 1 has another archive" in cloud("push", code=2)


@pytest.mark.parametrize("text", ["two words", 'it\'s $HOME `ls` "quoted"', "two\nlines", "a\\b"])
def test_values_arrive_as_they_are(cloud, text):
    cloud.ready("forever")
    cloud("start", TRAIN, f"--env=TEXT={text}")
    cloud.until("training on worker 1 of 2")
    cloud("stop")
    assert (cloud.home(1) / "text").read_text() == text


@pytest.mark.parametrize(
    "more, words",
    [
        (["--command=train --config x"], "has no --workdir"),
        (["--command="], "--command is empty"),
        ([TRAIN, "--env=1=2"], "no NAME=VALUE"),
        ([TRAIN, "--accelerator=v9-8"], "known are v4-N"),
        ([TRAIN, "--run=../x"], "small letters"),
    ],
)
def test_bad_arguments_are_a_sentence(cloud, more, words):
    assert words in cloud("start", *more, code=2)


def test_without_gcloud_the_advice_is_to_install_it(cloud, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert "gcloud is not installed" in cloud("stop", code=2)


def test_delete_twice_is_no_failure_and_list_shows_what_costs(cloud):
    cloud.mode("forever")
    cloud("create")
    assert "eyes" in cloud("list")
    cloud("delete")
    cloud("delete")
    assert "eyes" not in cloud("list")


def test_the_cost_of_an_hour_is_said(cloud):
    assert "8 chips: $25.76 on demand" in cloud("cost")
