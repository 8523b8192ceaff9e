"""A newest checkpoint that cannot be read costs what was learned after the one before, no more."""

from __future__ import annotations

import dataclasses
import shutil

import pytest

from tests.failures.toy_run import CONFIG
from tests.training.checkpoint.resume_test import losses
from tests.training.toy import ToyTask
from training.checkpoint.store import CheckpointReader
from training.config import CheckpointConfig, Duration, EvaluationConfig, LogConfig
from training.errors import CheckpointError
from training.loop import fit

TASK = ToyTask(
    dataclasses.replace(
        CONFIG,
        total=Duration(updates=6),
        checkpoint=CheckpointConfig(every=Duration(updates=2)),
        evaluation=EvaluationConfig(every=Duration(updates=6), batch_size=8, at_start=False),
        log=LogConfig(every=1),
    )
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of six updates with the checkpoints of steps 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("run")
    assert fit(TASK, folder) == "done"
    return folder


def emptied(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def gone(path):
    path.unlink()


def garbled(path):
    path.write_bytes(b"{" + b"\xff" * path.stat().st_size)


@pytest.mark.parametrize("damage", [emptied, cut, gone, garbled])
@pytest.mark.parametrize(
    "part",
    [
        "data/data.json",
        "_CHECKPOINT_METADATA",
        "state/_METADATA",
        "state/_sharding",
        "state/manifest.ocdbt",
    ],
)
def test_the_run_goes_back_to_the_checkpoint_before_and_says_so(
    finished, tmp_path, capsys, part, damage
):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    path = run / "checkpoints" / "6" / part
    if not path.exists():
        pytest.skip(f"this version of the storage writes no {part}")
    damage(path)
    assert fit(TASK, run) == "done"
    said = capsys.readouterr().err
    readable = "all 6 updates were made before" in said  # damaged in nothing that is needed
    if not readable:
        aside = {p.name for p in (run / "checkpoints").iterdir()} & {"6.damaged", "6.incomplete"}
        assert len(aside) == 1
        if "6.damaged" in aside:
            assert "cannot be read" in said and "going back to the checkpoint of step 4" in said
    assert "Traceback" not in said
    assert losses(run) == losses(finished)
    assert CheckpointReader(run).latest() == 6


def test_damaged_arrays_are_found_too(finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    arrays = [p for p in (run / "checkpoints/6/state").rglob("d/*") if p.is_file()]
    assert arrays
    for path in arrays:
        garbled(path)
    assert fit(TASK, run) == "done"
    assert "going back to the checkpoint of step 4" in capsys.readouterr().err
    assert losses(run) == losses(finished)


def test_where_none_can_be_read_the_run_is_refused_and_nothing_is_changed(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for step in (2, 4, 6):
        emptied(run / "checkpoints" / str(step) / "data" / "data.json")
    before = sorted(path for path in run.rglob("*"))
    with pytest.raises(CheckpointError, match=r"no checkpoint .* can be read; the newest: "):
        fit(TASK, run)
    assert sorted(path for path in run.rglob("*")) == before
