"""The work folder under misuse: two runs, a full disk, a refused command, damaged files."""

from __future__ import annotations

import dataclasses
import errno
import json
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.failures.toy_run import CONFIG
from tests.training.toy import ToyTask
from training.checkpoint.store import CheckpointStore
from training.config import CheckpointConfig, Duration, EvaluationConfig, LogConfig
from training.errors import ConfigError, InputError
from training.loop import fit
from training.record.metrics import MetricWriter, read_metrics, save_images
from training.record.run_folder import held_run_folder, read_config, write_table
from training.verdict import Table

SMALL = dataclasses.replace(
    CONFIG,
    total=Duration(updates=4),
    checkpoint=CheckpointConfig(every=Duration(updates=2)),
    evaluation=EvaluationConfig(every=Duration(updates=4), batch_size=8, at_start=False),
    log=LogConfig(every=1),
)
HOLD = """
import sys
from pathlib import Path
from training.record.run_folder import held_run_folder
with held_run_folder(Path(sys.argv[1]), True):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def finished(tmp_path):
    """A folder of four updates."""
    assert fit(ToyTask(SMALL), tmp_path) == "done"
    return tmp_path


def test_a_second_run_in_the_folder_is_refused_until_the_first_is_gone_however_it_went(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(InputError, match=rf"another run is at work .* \(process {other.pid} on"),
            held_run_folder(tmp_path, True),
        ):
            pass
        other.kill()
        other.wait()
    with held_run_folder(tmp_path, True):
        pass


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    write, save = MetricWriter.write, CheckpointStore.save

    def saved_at_once(self, *arguments, **named):
        save(self, *arguments, **named)
        self.wait()  # A process that ends has no save under way when the next one begins.

    def full(self, step, values):
        if step == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, step, values)

    with monkeypatch.context() as disk:
        disk.setattr(MetricWriter, "write", full)
        disk.setattr(CheckpointStore, "save", saved_at_once)
        with pytest.raises(InputError, match=r"can take no more \(No space left on device\); free"):
            fit(ToyTask(SMALL), tmp_path)
    assert not (tmp_path / "DONE").exists()
    assert fit(ToyTask(SMALL), tmp_path) == "done"
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4]


def test_other_errors_of_the_system_stay_what_they_are(tmp_path):
    with pytest.raises(OSError, match="broken"), held_run_folder(tmp_path, True):
        raise OSError(errno.EIO, "broken")


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_refused_command_leaves_the_folder_as_it_was(finished):
    ignored = {finished / ".lock"}
    before = {path: data for path, data in files(finished).items() if path not in ignored}
    with pytest.raises(ConfigError, match=r"with a change of config\.batch_size from 16 to 8"):
        fit(ToyTask(dataclasses.replace(SMALL, batch_size=8)), finished)
    with pytest.raises(ConfigError, match="holds a run of toy, not of other; choose another"):
        fit(ToyTask(dataclasses.replace(SMALL, system="other")), finished)
    after = {path: data for path, data in files(finished).items() if path not in ignored}
    assert after == before


def test_a_line_of_metrics_torn_in_the_middle_costs_that_step_only(finished):
    path = finished / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    second = next(i for i, line in enumerate(lines) if json.loads(line)["step"] == 2)
    lines[second] = lines[second][:20] + "\n"
    path.write_text("".join(lines)[:-30])
    assert fit(ToyTask(SMALL), finished) == "done"
    rows = read_metrics(finished)
    assert [row["step"] for row in rows] == [1, 3, 4]
    assert "eval/error" not in rows[-1], "the last line was torn, too"


@pytest.mark.parametrize("text", ['{"config": {"sys', "[]", '{"config": 3}'])
def test_a_damaged_config_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        read_config(tmp_path)


@pytest.mark.parametrize("name", ["eval/4.json", "tables/ledger.json"])
def test_a_damaged_file_that_a_resume_reads_is_named(finished, name):
    path = finished / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"step": 4, "err')
    with pytest.raises(InputError, match=rf"{name} is damaged .*; restore it, or delete it"):
        fit(ToyTask(SMALL), finished)


def test_a_table_names_its_pictures_as_their_files(tmp_path):
    write_table(tmp_path, "views", Table("Views", ("view",), [("a",), ("b",)], ("near/a", "")))
    save_images(tmp_path, 3, {"near/a": np.zeros((2, 2, 3), np.uint8)})
    (file,) = (tmp_path / "artifacts" / "3").iterdir()
    content = json.loads((tmp_path / "tables" / "views.json").read_text())
    assert content["pictures"] == [file.stem, ""]
