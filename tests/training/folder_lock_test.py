"""One run in a folder: flock on a disk, a lease in a bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from training import folder_lock, storage
from training.errors import InputError
from training.folder_lock import Lease


def never(sentence):
    raise AssertionError(sentence)


def owner_in(folder):
    return json.loads(storage.read_text(folder / folder_lock.LOCK))


def test_a_second_run_is_refused_and_told_who_is_at_work(place):
    storage.make_folder(place)
    refused = pytest.raises(InputError, match=rf"at work in {place} .*process {os.getpid()} on")
    with folder_lock.held(place, never), refused:
        folder_lock.held(place, never).__enter__()
    with folder_lock.held(place, never):
        pass


def test_a_lease_is_removed_at_the_end(bucket):
    with folder_lock.held(bucket, never):
        assert (bucket / folder_lock.LOCK).exists()
    assert storage.list_folder(bucket) == []


def test_refusal_says_age_and_how_long_to_wait(bucket):
    refused = pytest.raises(InputError, match=r"sign of life \d+ s ago.*killed, \d+ s")
    with folder_lock.held(bucket, never), refused:
        folder_lock.held(bucket, never).__enter__()


def leave_lease(bucket, **owner):
    """A lease whose owner does nothing for it any more."""
    lease = Lease(bucket, never)
    lease._owner |= owner
    lease._write("0")
    return lease


def test_an_old_lease_is_taken_over_and_its_owner_notices(bucket, monkeypatch):
    first = leave_lease(bucket, machine="another", host="far")
    with pytest.raises(InputError, match="on far"):
        folder_lock.held(bucket, never).__enter__()
    monkeypatch.setattr(folder_lock, "LEASE_SECONDS", 0.0)
    with folder_lock.held(bucket, never):
        assert not first.renew()
        assert owner_in(bucket)["machine"] != "another"


def test_of_two_that_take_over_at_once_one_wins(bucket, monkeypatch):
    leave_lease(bucket, machine="another")
    monkeypatch.setattr(folder_lock, "LEASE_SECONDS", 0.0)
    slow, quick = Lease(bucket, never), Lease(bucket, never)
    found = slow._read()
    with_quick = lambda: (quick.acquire(), found)[1]  # noqa: E731 - between its read and its write
    monkeypatch.setattr(slow, "_read", with_quick)
    with pytest.raises(InputError, match="another run"):
        slow.acquire()
    assert owner_in(bucket)["token"] == quick._owner["token"]
    quick.release()


def test_the_lease_of_a_process_of_this_machine_that_ended_is_taken_at_once(bucket):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    leave_lease(bucket, process=ended.pid)
    with folder_lock.held(bucket, never):
        assert owner_in(bucket)["process"] == os.getpid()


def test_a_lease_is_renewed_and_a_lost_one_is_told(bucket, monkeypatch):
    monkeypatch.setattr(folder_lock, "RENEW_SECONDS", 0.01)
    told = []
    lease = Lease(bucket, told.append)
    lease.acquire()
    first = lease._generation
    while lease._generation == first:
        lease._stopped.wait(0.01)
    folder_lock._request(lease.path, "POST", None, b'{"token": "other"}')
    lease._thread.join(timeout=30)
    assert len(told) == 1 and "taken over" in told[0]
    lease.release()
    assert owner_in(bucket) == {"token": "other"}  # not removed: it is the other run's


def test_an_answer_that_was_lost_on_the_way_is_no_lost_lease(bucket):
    lease = leave_lease(bucket)
    folder_lock._request(lease.path, "POST", None, json.dumps(lease._owner).encode())
    assert lease.renew()
    assert lease.renew()
