"""An evaluation on two hosts: each reads and looks at its share, all know the same result."""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from launch.podsim import SimulatedPod
from tests.conftest import REPOSITORY
from tests.pod.evaluation_worker import LENGTH
from tests.training.toy import ToySource

pytestmark = pytest.mark.pod

WORKER = Path(__file__).with_name("evaluation_worker.py")


@pytest.mark.parametrize("axes", [{"data": 4}, {"data": 2, "model": 2}, {"data": 1, "model": 4}])
def test_two_hosts_share_an_evaluation_and_agree_on_its_result(axes, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    pod = SimulatedPod([sys.executable, str(WORKER), json.dumps(axes)], 2, 2, tmp_path)
    alarm = threading.Timer(100, pod.send, [signal.SIGKILL])
    alarm.start()
    code = pod.wait(60)
    alarm.cancel()
    logs = [(tmp_path / f"host-{host}.log").read_text() for host in range(2)]
    assert code == 0, logs
    lines = [line for log in logs for line in log.splitlines() if line.startswith("result ")]
    first, second = (json.loads(line.removeprefix("result ")) for line in lines)
    assert sorted(first.pop("own") + second.pop("own")) == list(range(LENGTH)), "once each"
    assert first == second

    wanted = 2 * np.stack([ToySource(LENGTH)[i]["x"] for i in range(LENGTH)])
    np.testing.assert_array_equal(np.float32(first["rows"]["x"]), wanted)
    assert first["rows"]["index"] == list(range(LENGTH))
    bound = 16 * np.finfo(np.float32).eps * np.abs(wanted).sum(0)
    assert np.all(np.abs(first["sums"]["x"] - wanted.astype(np.float64).sum(0)) <= bound)
    assert first["sums"]["count"] == LENGTH
    gathered = [first["gathered"][str(i)] for i in range(LENGTH)]
    np.testing.assert_allclose(gathered, wanted.sum(1), rtol=1e-5, atol=1e-5)
