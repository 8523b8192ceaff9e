"""The JSONL file is the truth: monotone, strict JSON, robust against stops; mirrors may fail."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.config import LogConfig
from training.record import metrics
from training.record.metrics import METRICS_FILE, MetricWriter, drop_lines_after, read_metrics

REPOSITORY = Path(__file__).resolve().parents[3]


def open_writer(workdir, *, config=None, main=True, resumed_step=None):
    return MetricWriter(workdir, config or LogConfig(), "run", {"a": 1}, main, resumed_step)


def raw_steps(workdir):
    lines = (workdir / METRICS_FILE).read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_every_written_value_reads_back_bit_identically(tmp_path):
    values = {"train/loss": 1 / 3, "train/grad_norm": 1e-300, "perf/mfu": 12345678.9}
    writer = open_writer(tmp_path)
    writer.write(10, values)
    assert read_metrics(tmp_path) == [{"step": 10, **values}], "readable before close"
    writer.close()


def test_non_finite_values_are_strict_json_and_come_back_as_floats(tmp_path):
    writer = open_writer(tmp_path)
    writer.write(1, {"nan": math.nan, "up": math.inf, "down": -math.inf})
    writer.close()

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    line = (tmp_path / METRICS_FILE).read_text()
    assert json.loads(line, parse_constant=refuse)["down"] == "-Infinity"
    (row,) = read_metrics(tmp_path)
    assert math.isnan(row["nan"]) and row["up"] == math.inf and row["down"] == -math.inf


def test_lines_of_one_step_are_merged(tmp_path):
    writer = open_writer(tmp_path)
    writer.write(5, {"train/loss": 1.0})
    writer.write(5, {"eval/psnr": 20.0})
    writer.close()
    assert read_metrics(tmp_path) == [{"step": 5, "train/loss": 1.0, "eval/psnr": 20.0}]


def test_a_falling_step_is_refused(tmp_path):
    writer = open_writer(tmp_path)
    writer.write(5, {})
    with pytest.raises(ValueError, match="step 4 come after those of step 5"):
        writer.write(4, {})
    writer.close()


def test_resume_drops_what_the_checkpoint_does_not_know(tmp_path):
    writer = open_writer(tmp_path)
    for step in (10, 20, 30, 40):
        writer.write(step, {"train/loss": float(step)})
    writer.close()
    resumed = open_writer(tmp_path, resumed_step=20)
    assert resumed.dropped_lines == 2
    resumed.write(30, {"train/loss": -1.0})
    resumed.close()
    assert raw_steps(tmp_path) == [10, 20, 30]
    assert read_metrics(tmp_path)[-1]["train/loss"] == -1.0


def test_a_fresh_start_leaves_nothing_of_an_attempt_without_checkpoint(tmp_path):
    writer = open_writer(tmp_path)
    writer.write(0, {"eval/psnr": 1.0})
    writer.close()
    open_writer(tmp_path).close()
    assert read_metrics(tmp_path) == []


def test_a_torn_last_line_is_tolerated_and_removed_on_resume(tmp_path):
    path = tmp_path / METRICS_FILE
    path.write_text('{"step": 1, "x": 2.0}\n{"step": 2, "x"')
    assert read_metrics(tmp_path) == [{"step": 1, "x": 2.0}]
    writer = open_writer(tmp_path, resumed_step=1)
    writer.write(2, {"x": 3.0})
    writer.close()
    assert raw_steps(tmp_path) == [1, 2]


def test_a_broken_line_in_the_middle_is_named_by_number(tmp_path):
    path = tmp_path / METRICS_FILE
    path.write_text('{"step": 1}\nrubbish\n[3]\n{"step": 4}\n')
    rows, problems = metrics.read_json_lines(path)
    assert [row["step"] for row in rows] == [1, 4]
    assert [sentence.split(" is not")[0] for sentence in problems] == [
        "metrics.jsonl line 2",
        "metrics.jsonl line 3",
    ]


def test_a_stop_before_the_rename_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / METRICS_FILE
    before = '{"step": 1}\n{"step": 9}\n'
    path.write_text(before)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        drop_lines_after(path, 1)
    assert path.read_text() == before


def test_images_become_png_files_named_by_step(tmp_path):
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    writer = open_writer(tmp_path)
    writer.write_images(7, {"test/view": pixels})
    writer.close()
    saved = np.asarray(Image.open(tmp_path / "artifacts" / "7" / "test_view.png"))
    np.testing.assert_array_equal(saved, pixels)


def test_other_processes_write_nothing_but_pictures_of_their_own(tmp_path):
    writer = open_writer(tmp_path / "absent", main=False)
    writer.write(1, {"train/loss": 1.0})
    writer.write_images(1, {})
    assert not (tmp_path / "absent").exists()
    writer.write_images(1, {"x": np.zeros((2, 2, 3), np.uint8)})
    writer.close()
    files = [path for path in (tmp_path / "absent").rglob("*") if path.is_file()]
    assert files == [tmp_path / "absent" / "artifacts" / "1" / "x.png"]


def tensorboard_events(path):
    """Events of a TFRecord file: length (8 bytes), checksum (4), message, checksum (4)."""
    from tensorboardX.proto.event_pb2 import Event

    data, events = path.read_bytes(), []
    while data:
        (length,) = struct.unpack_from("<Q", data)
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events


def test_tensorboard_receives_the_same_numbers(tmp_path):
    writer = open_writer(tmp_path, config=LogConfig(tensorboard=True))
    writer.write(3, {"train/loss": 0.25})
    writer.write_images(3, {"view": np.zeros((2, 2, 3), np.uint8)})
    writer.close()
    (path,) = (tmp_path / "tensorboard").glob("events*")
    events = [event for event in tensorboard_events(path) if event.summary.value]
    assert [event.step for event in events] == [3, 3]
    assert events[0].summary.value[0].simple_value == 0.25


class FailingMirror:
    name = "W&B"
    errors = (OSError,)

    def __init__(self):
        self.calls = 0

    def write(self, step, values):
        self.calls += 1
        raise OSError("the disk of the mirror is full")

    def write_images(self, step, images): ...

    def alert(self, title, text):
        self.alerted = (title, text)

    def close(self): ...


def test_an_alert_goes_to_the_mirrors(tmp_path):
    writer = open_writer(tmp_path)
    mirror = FailingMirror()
    writer._mirrors.append(mirror)
    writer.alert("stopped at step 3", "no gradient")
    writer.close()
    assert mirror.alerted == ("stopped at step 3", "no gradient")


def test_a_failing_mirror_is_said_once_and_the_file_goes_on(tmp_path, capsys):
    writer = open_writer(tmp_path)
    mirror = FailingMirror()
    writer._mirrors.append(mirror)
    writer.write(1, {"x": 1.0})
    writer.write(2, {"x": 2.0})
    writer.close()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "the disk of the mirror is full" in said
    assert mirror.calls == 1 and len(read_metrics(tmp_path)) == 2


def test_a_programming_error_in_a_mirror_is_not_swallowed(tmp_path):
    writer = open_writer(tmp_path)
    mirror = FailingMirror()
    mirror.errors = (ConnectionError,)
    writer._mirrors.append(mirror)
    with pytest.raises(OSError, match="disk of the mirror"):
        writer.write(1, {"x": 1.0})


def test_mirrors_that_are_off_are_not_imported():
    code = (
        "import sys, training.record.metrics; "
        "print({'wandb', 'tensorboardX', 'jax'} & {*sys.modules})"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"


def test_wandb_offline_keeps_one_id_over_restarts(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    ids = []
    for resumed_step in (None, 1):
        writer = open_writer(tmp_path, config=LogConfig(wandb=True), resumed_step=resumed_step)
        writer.write((resumed_step or 0) + 1, {"train/loss": 1.0})
        writer.write_images(2, {"view": np.zeros((2, 2, 3), np.uint8)})
        writer.close()
        ids.append((tmp_path / "wandb_id.txt").read_text())
    folders = sorted(folder.name for folder in (tmp_path / "wandb").glob("offline-run-*"))
    assert ids[0] == ids[1] and folders and all(ids[0] in name for name in folders)
