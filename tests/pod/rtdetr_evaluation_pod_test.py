"""A detector evaluated by several hosts has the numbers, tables and pictures of one process."""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path

import pytest

from launch.podsim import SimulatedPod
from rtdetr import inference
from tests.conftest import REPOSITORY
from tests.pod.rtdetr_evaluation_worker import evaluated
from tests.rtdetr import color_detector

pytestmark = pytest.mark.pod

NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
NAMES += ("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")
WORKER = Path(__file__).with_name("rtdetr_evaluation_worker.py")


def results_of_hosts(hosts, chips, folder):
    """What each host printed."""
    pod = SimulatedPod([sys.executable, str(WORKER)], hosts, chips, folder)
    alarm = threading.Timer(200, pod.send, [signal.SIGKILL])
    alarm.start()
    code = pod.wait(60)
    alarm.cancel()
    logs = [(folder / f"host-{host}.log").read_text() for host in range(hosts)]
    assert code == 0, logs
    lines = [line for log in logs for line in log.splitlines() if line.startswith("result ")]
    return [json.loads(line.removeprefix("result ")) for line in lines]


def test_hosts_that_share_an_evaluation_score_what_one_process_scores(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setattr(inference, "detect", color_detector.detect)
    alone = json.loads(json.dumps(evaluated(color_detector.layout_of(4))))
    first, second = results_of_hosts(2, 2, tmp_path)
    for result in (first, second):
        for name in NAMES:
            assert result["metrics"][name] == pytest.approx(alone["metrics"][name], abs=1e-9), name
        assert result["metrics"] == pytest.approx(alone["metrics"], abs=1e-6)
        assert result["tables"] == alone["tables"]
    # Neither perfect nor nothing, and the last weights are worse than the average.
    assert 0.2 < alone["metrics"]["AP"] < 0.9
    assert alone["metrics"]["AP_raw"] < alone["metrics"]["AP"] - 0.05
    assert first["images"] == alone["images"] and second["images"] == []
