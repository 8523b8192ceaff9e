"""Whole commands on a work folder in a bucket, against an emulator of the storage service."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from splats.synthetic import SyntheticConfig, write_scene
from tests import emulator
from tests.conftest import REPOSITORY

pytestmark = [
    pytest.mark.pod,
    pytest.mark.skipif(not emulator.is_installed(), reason=emulator.MISSING),
]

TOTAL = 20
CHANGES = (
    "batch_size=2",
    "updates_per_call=1",
    "model.initial_capacity=256",
    "model.cap_max=256",
    "render.pair_capacity=4096",
    "densify.strategy=none",
    f"total.updates={TOTAL}",
    "log.every=1",
    f"evaluation.every.updates={TOTAL}",
    "checkpoint.every.updates=4",
)
WORKDIR = "gs://bucket/runs/tiny"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    size = SyntheticConfig(views=9, width=24, height=18, points=100, samples=1)
    return write_scene(tmp_path_factory.mktemp("bucket") / "scene", size)


@pytest.fixture
def service(tmp_path):
    with emulator.Emulator(tmp_path / "storage") as running:
        yield running


def command(*arguments, environment=None, **options):
    """A `podvision` command as a process; its two streams are pipes of text."""
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    return subprocess.Popen(
        [sys.executable, "-m", "launch.cli", *arguments],
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "XLA_FLAGS": flags,
            **(environment or {}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def train(scene, workdir, environment=None):
    config = f"{REPOSITORY}/configs/splats/smoke.py:{scene}"
    changes = [f"--config.{change}" for change in CHANGES]
    return command(
        "train", "--config", config, "--workdir", str(workdir), *changes, environment=environment
    )


def until_step(process, step):
    """Reads the progress lines until an update has been made."""
    seen = []
    for line in process.stderr:
        seen.append(line)
        if (found := re.match(r"step +(\d+)/", line)) and int(found[1]) >= step:
            return
    raise AssertionError(f"it ended early: {''.join(seen)}")


def finished(process, code=0):
    output, errors = process.communicate(timeout=300)
    assert process.returncode == code, (output, errors)
    return output, errors


def losses(text):
    rows = [json.loads(line) for line in text.splitlines()]
    return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}


def test_killed_run_in_a_bucket_goes_on_as_if_it_lay_on_a_disk(scene, service, tmp_path):
    finished(train(scene, tmp_path / "local"))
    process = train(scene, WORKDIR, service.environment)
    until_step(process, 9)  # The save of step 4 is complete once that of step 8 has begun.
    process.send_signal(signal.SIGKILL)
    process.communicate()
    objects = service.folder / "objects" / "bucket" / "runs" / "tiny"
    assert (objects / "checkpoints/4/commit_success.txt").exists()
    assert not (objects / "DONE").exists()

    finished(train(scene, WORKDIR, service.environment))
    assert (objects / "DONE").read_text() == f"{TOTAL}\n"
    assert not (objects / ".lock").exists()
    expected = losses((tmp_path / "local/metrics.jsonl").read_text())
    assert list(expected) == list(range(1, TOTAL + 1))
    assert losses((objects / "metrics.jsonl").read_text()) == pytest.approx(expected, rel=1e-6)

    for workdir, environment in ((tmp_path / "local", {}), (WORKDIR, service.environment)):
        finished(command("evaluate", "--workdir", str(workdir), environment=environment))
    name = f"eval/{TOTAL}.json"
    scores = json.loads((objects / name).read_text())
    assert scores == pytest.approx(json.loads((tmp_path / "local" / name).read_text()), rel=1e-6)
    output, _ = finished(command("report", "--workdir", WORKDIR, environment=service.environment))
    assert output.strip() == f"{WORKDIR}/report.html"
    page = (objects / "report.html").read_text()
    assert f"step {TOTAL}" in page and "were left out" not in page


@pytest.mark.slow  # the client asks again for half a minute before it gives up
def test_bucket_that_goes_away_ends_the_run_with_a_sentence_and_loses_nothing(scene, service):
    process = train(scene, WORKDIR, service.environment)
    until_step(process, 5)
    service.stop()
    begun = time.monotonic()
    output, errors = finished(process, code=2)
    assert time.monotonic() - begun < 180
    last = errors.strip().splitlines()[-1]
    assert WORKDIR in last and "same command" in last, errors
    service.start()
    finished(train(scene, WORKDIR, service.environment))
    objects = service.folder / "objects" / "bucket" / "runs" / "tiny"
    assert sorted(losses((objects / "metrics.jsonl").read_text())) == list(range(1, TOTAL + 1))
