"""Why a run ended, from all workers' tails; and how reports are read."""

from __future__ import annotations

import pytest

from launch.pod.reports import Worker, reports, workers
from launch.pod.slices import Slice
from launch.pod.verdicts import Cause, judge
from training.distributed import check_hosts
from training.errors import ConfigError


def ended(number, code, *tail):
    return Worker(number, "ended", "attempt-1", code, "abc", "", tail)


BAD = Cause.BAD_NODE
LOST = "JaxRuntimeError: UNAVAILABLE: Socket closed by the coordination service"


@pytest.mark.parametrize(
    "found, cause, worker",
    [
        ([ended(0, 0, "all updates made"), ended(1, 0)], Cause.DONE, None),
        ([ended(0, 0), ended(1, 0, "asked to stop: all is saved")], Cause.PREEMPTED, 1),
        ([ended(0, 134, LOST), ended(1, 3, "podvision train: stop [guard x]")], Cause.REFUSED, 1),
        ([ended(0, 134, LOST), ended(1, 1, "/dev/vfio/1: Device or resource busy")], BAD, 1),
        ([ended(0, 134, LOST), ended(1, 1, "ValueError: x")], Cause.CRASH, 1),
        ([ended(0, 0, "all updates made")], Cause.CRASH, None),
        ([ended(0, None), ended(1, 0)], Cause.CRASH, 0),
        ([Worker(0, "none", "-", None, "-", "")], Cause.ABSENT, None),
        ([], Cause.ABSENT, None),
        ([Worker(0, "running", "attempt-1", None, "a", ""), ended(1, 1, "x")], Cause.RUNNING, None),
    ],
)  # fmt: skip
def test_the_cause_and_the_worker_that_shows_it(found, cause, worker):
    verdict = judge(found, 2)
    assert (verdict.cause, verdict.worker) == (cause, worker)


def test_a_word_of_a_bad_node_in_a_run_that_is_done_means_nothing():
    assert (
        judge([ended(0, 0, "retried: Device or resource busy"), ended(1, 0)], 2).cause is Cause.DONE
    )


def test_reports_are_found_behind_names_of_workers_and_the_last_one_counts():
    text = "noise\n@pod\tstart\t0\tstarted\tattempt-1\nhost-1: @pod\tstart\t1\tx\ty\n"
    text += "@pod\tstart\t0\trunning\tattempt-1\n@pod\tstart\t\tlost\n"
    assert reports(text, "start") == {0: ["running", "attempt-1"], 1: ["x", "y"]}


def test_a_log_with_tabs_keeps_them():
    text = "@pod\tstatus\t0\tended\tattempt-2\t1\tabc\t77 \n@pod\ttail\t0\ta\tb\n"
    (found,) = workers(text)
    assert found == Worker(0, "ended", "attempt-2", 1, "abc", "77", ("a\tb",))


@pytest.mark.parametrize(
    "name, hosts, chips",
    [("v4-8", 1, 4), ("v4-32", 4, 16), ("v5litepod-16", 4, 16), ("v6e-8", 2, 8)],
)
def test_hosts_and_chips_of_a_slice(name, hosts, chips):
    found = Slice("a", "z", name)
    assert (found.hosts, found.chips) == (hosts, chips)


def test_a_run_whose_hosts_do_not_find_each_other_is_refused():
    check_hosts(4, 4)
    with pytest.raises(ConfigError, match="started on 4 hosts and 1 found each other"):
        check_hosts(4, 1)
