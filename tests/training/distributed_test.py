"""Start-up, stop and failure of a single process; several are in tests/pod."""

from __future__ import annotations

import os
import signal

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from training import distributed, stop
from training.errors import CheckpointError, ConfigError, DataFault


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_request_to_stop_from_the_begin_of_the_command_on(number):
    with stop.listening(stop.ASK, "train"):
        assert not distributed.stop_requested()
        os.kill(os.getpid(), number)
        distributed.initialize({"JAX_PLATFORMS": "cpu"})
        assert distributed.stop_requested() and distributed.stop_requested()
    assert not distributed.stop_requested()


@pytest.mark.parametrize("count", ["", "two", "-1"])
def test_incomplete_variables_are_refused_by_name(count):
    environment = {"PODVISION_COORDINATOR": "127.0.0.1:1", "PODVISION_NUM_PROCESSES": count}
    with pytest.raises(ConfigError, match="PODVISION_NUM_PROCESSES is"):
        distributed.initialize(environment)


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({}, False),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, False),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, True),
        ({"JOB_COMPLETION_INDEX": "0"}, False),
        ({"JOB_COMPLETION_INDEX": "0", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, True),
    ],
)
def test_other_hosts_are_looked_for_where_there_can_be_some(environment, several):
    assert distributed._several_hosts({"JAX_PLATFORMS": "cpu", **environment}) == several


def test_one_process_agrees_with_itself(tmp_path):
    distributed.assert_same("config", {"seed": 1})
    distributed.barrier("alone")
    distributed.check_shared_folder(tmp_path / "new" / "folder")
    assert distributed.is_main()
    assert list((tmp_path / "new" / "folder").iterdir()) == []


@pytest.mark.parametrize("other", [1, 2])
def test_every_host_is_compared_with_the_first(monkeypatch, other):
    def gathered(digest):
        everyone = np.tile(digest, (3, 1))
        everyone[other, -1] ^= 1  # one bit of one host's digest
        return everyone

    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(multihost_utils, "process_allgather", gathered)
    with pytest.raises(ConfigError, match=f"config on host {other} differs from host 0"):
        distributed.assert_same("config", {"seed": 1})
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda x: np.tile(x, (3, 1)))
    distributed.assert_same("config", {"seed": 1})


def test_an_unwritable_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot be written by host 0 \(.+\); choose"):
        distributed.check_shared_folder(tmp_path / "file" / "folder")


def test_errors_for_the_user_become_their_exit_code_and_one_line(capsys):
    def fails():
        raise DataFault("3 of 100 examples are unreadable in shard 7; repair it")

    assert distributed.exit_hook(fails) == 4
    expected = "podvision: error: 3 of 100 examples are unreadable in shard 7; repair it\n"
    assert capsys.readouterr().err == expected
    assert distributed.exit_hook(fails, debug=True) == 4
    assert "Traceback" in capsys.readouterr().err


def test_other_errors_and_exit_codes_pass_through():
    with pytest.raises(ZeroDivisionError):
        distributed.exit_hook(lambda: 1 // 0)
    assert distributed.exit_hook(lambda: 3) == 3
