"""Sharded Gaussians on a simulated pod: one host is told to stop, another layout goes on."""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
import time

import pytest

from launch.podsim import SimulatedPod
from splats.synthetic import SyntheticConfig, write_scene
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.pod

TOTAL = 14
CHANGES = (
    "shard_gaussians=True",
    "mesh.data=1",
    "mesh.fsdp=4",
    "batch_size=4",
    "batch_scaling=sqrt",
    "updates_per_call=1",
    "model.initial_capacity=512",
    "model.cap_max=512",
    "render.pair_capacity=8192",
    "render.exchange_capacity=96",
    "densify.refine_start_iter=2",
    "densify.refine_every=4",
    "densify.reset_every=40",
    "densify.grow_grad2d=2e-3",
    f"densify.refine_stop_iter={TOTAL}",
    f"total.updates={TOTAL}",
    "log.every=1",
    f"evaluation.every.updates={TOTAL}",
    f"checkpoint.every.updates={TOTAL}",
)


def run_pod(scene, workdir, logs, layout, stop_after=None):
    """Hosts x chips, to the end or until SIGTERM to the last host; exit codes and host 0's log."""
    hosts, chips = layout
    command = [sys.executable, "-m", "launch.cli", "train"]
    command += ["--config", f"{REPOSITORY}/configs/splats/smoke.py:{scene}"]
    command += ["--workdir", str(workdir), *(f"--config.{change}" for change in CHANGES)]
    pod = SimulatedPod(command, hosts, chips, logs)
    alarm = threading.Timer(400, pod.send, [signal.SIGKILL])
    alarm.start()
    log = logs / "host-0.log"
    while stop_after and any(host.process.poll() is None for host in pod.hosts):
        if log.exists() and re.search(rf"^step +{stop_after}/", log.read_text(), re.MULTILINE):
            pod.send(signal.SIGTERM, host=hosts - 1)
            break
        time.sleep(0.02)
    pod.wait(grace=60)
    alarm.cancel()
    return [host.process.returncode for host in pod.hosts], log.read_text()


def rows(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_sharded_gaussians_train_on_several_hosts_and_go_on_on_one(tmp_path, monkeypatch):
    size = SyntheticConfig(views=9, width=24, height=18, points=100, samples=1)
    scene_folder = write_scene(tmp_path / "scene", size)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    # The hosts' programs run for seconds: compiling them well would cost more.
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    monkeypatch.setenv("XLA_FLAGS", flags)
    work = tmp_path / "run"
    codes, log = run_pod(scene_folder, work, tmp_path / "logs", (2, 2), stop_after=5)
    assert codes == [0, 0], log
    saved = int((work / "PREEMPTED").read_text())
    assert 5 <= saved < TOTAL and f"asked to stop: all is saved up to step {saved}" in log
    assert "capacity grown (exchange)" in log  # by all hosts alike, or they would have hung

    codes, log = run_pod(scene_folder, work, tmp_path / "more", (1, 4))
    assert codes == [0], log
    history = rows(work)
    losses = {row["step"]: row["train/loss"] for row in history if "train/loss" in row}
    assert list(losses) == list(range(1, TOTAL + 1))
    assert losses[TOTAL] < losses[1]
    assert losses[saved + 1] < 1.3 * losses[saved]
    scores = {row["step"]: row["eval/psnr"] for row in history if "eval/psnr" in row}
    assert scores[TOTAL] > scores[0]
    ledger = [row for row in history if "densify/alive" in row]
    assert ledger[-1]["densify/alive"] > ledger[0]["densify/alive"]
    assert max(row["densify/shard_imbalance"] for row in ledger) < 1.25
    assert (work / "DONE").exists()
