"""Programs of pods against what libtpu said of them before: memory within 2 %, and traffic.

A change that makes an update larger, or chips talk more, is seen here without a TPU. Each file of
`preflight_goldens` is one config on one slice; `python -m tests.parity.preflight_tpu_test NAME`
compiles it again and writes its figures anew. Minutes of CPU time each; run by `make parity`.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launch.preflight.compiler import ISOLATED, Request, ask, has_libtpu
from launch.preflight.stand_in import stand_in_for
from tests.conftest import REPOSITORY
from training.registry import load_config

pytestmark = [
    pytest.mark.tpu,
    pytest.mark.skipif(not has_libtpu(), reason="needs libtpu: pip install -e '.[tpu]'"),
]

GOLDENS = Path(__file__).with_name("preflight_goldens")
NAMES = sorted(path.stem for path in GOLDENS.glob("*.json"))
TOLERANCE = 0.02
LOCK = Path("/tmp/libtpu_lockfile")
SMALL = ("model.encoder.depth=1", "model.predictor.depth=1", "mask_preset=default")


def asked(golden: dict[str, Any]) -> dict[str, Any]:
    """The compiler's answer for the config of a golden file, with figures instead of data."""
    overrides = tuple(golden["overrides"])
    stand_in = stand_in_for(load_config(golden["config"], overrides))
    return ask(Request(golden["config"], overrides, "", golden["topology"], stand_in))


def kept(answer: dict[str, Any]) -> dict[str, Any]:
    """The figures that a golden file holds."""
    traffic = {
        name: {"instructions": kind["instructions"], "runs": kind["runs"]}
        for name, kind in answer["collectives"].items()
    }
    gib = {name: round(answer[name], 4) for name in ("chip_gib", "peak_gib")}
    return gib | {"collectives": traffic, "kernels": answer["kernels"]}


@pytest.fixture(autouse=True)
def compiled_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("PODVISION_CACHE", str(tmp_path))
    monkeypatch.chdir(REPOSITORY)


@pytest.mark.parametrize("name", NAMES)
def test_memory_and_traffic_of_a_pods_program_are_as_before(name):
    golden = json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))
    found = kept(asked(golden))
    for key in ("chip_gib", "peak_gib"):
        assert found[key] == pytest.approx(golden[key], rel=TOLERANCE), key
    assert found["collectives"] == golden["collectives"]
    assert found["kernels"] == golden["kernels"]


COMMAND = [
    sys.executable, "-m", "launch.cli", "preflight", "--config", "configs/jepa3d/smoke.py",
    "--topology", "v4-8", "--no-data", "--json", *(f"--config.{text}" for text in SMALL),
]  # fmt: skip


def test_two_preflights_at_once_pass():
    running = [
        subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in running:
        printed, complaint = process.communicate(timeout=500)
        assert process.returncode == 0, printed + complaint
        states = {row["check"]: row["state"] for row in json.loads(printed)["rows"]}
        assert states["compile"] == states["memory"] == "pass"


DESCRIBE = (
    "from launch.preflight.abstract import devices_of\n"
    "from launch.preflight.topology import topology\n"
    "print(len(devices_of(topology('v4-8'))))\n"
)


@pytest.fixture
def held_lock():
    """The lock of libtpu, held by this process; libtpu takes it by POSIX's `fcntl`, not `flock`."""
    was_there = LOCK.exists()
    with open(LOCK, "a", encoding="utf-8") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    if not was_there:
        LOCK.unlink()


@pytest.mark.parametrize(
    ("left_out", "passes"), [((), True), (("ALLOW_MULTIPLE_LIBTPU_LOAD",), False)]
)
def test_a_held_lock_of_libtpu_stops_only_who_does_not_allow_for_it(held_lock, left_out, passes):
    environment = {k: v for k, v in (os.environ | ISOLATED).items() if k not in left_out}
    done = subprocess.run(
        [sys.executable, "-c", DESCRIBE], env=environment, capture_output=True, text=True
    )
    assert (done.returncode == 0) == passes, done.stderr
    assert passes == (done.stdout.strip() == "4")


def test_too_large_a_batch_with_plain_attention_is_refused_in_the_compilers_numbers():
    overrides = ["batch_size=256", "model.attention=plain"]
    golden = {"config": "configs/jepa3d/v4_32.py", "overrides": overrides, "topology": "v4-32"}
    answer = asked(golden)
    assert answer["needed_gib"] > answer["available_gib"] == 30.75


def write(name: str) -> None:
    """Writes the figures of a golden file anew."""
    path = GOLDENS / f"{name}.json"
    golden = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(golden | kept(asked(golden)), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for chosen in sys.argv[1:]:
        write(chosen)
