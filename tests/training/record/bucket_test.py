"""What a run leaves and its report reads, in a bucket as on a disk."""

from __future__ import annotations

import numpy as np
import pytest

from training import storage
from training.config import LogConfig
from training.errors import ConfigError
from training.guards.watchdog import Watchdog
from training.record.events import EventLog, read_events
from training.record.metrics import MetricWriter, read_metrics
from training.record.recorder import Evidence, Recorder, read_recording, recorded_steps
from training.record.report import write_report
from training.record.run_folder import mark


def writer(place, resumed=None, **changes):
    return MetricWriter(place, LogConfig(**changes), "run", {}, True, resumed)


def test_metrics_after_the_resumed_step_are_dropped_and_written_again(place):
    first = writer(place)
    for step in range(1, 6):
        first.write(step, {"train/loss": float(step)})
    first.flush()  # and then it is killed
    second = writer(place, resumed=3)
    assert second.dropped_lines == 2
    second.write(4, {"train/loss": float("nan")})
    second.close()
    rows = read_metrics(place)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert np.isnan(rows[3]["train/loss"])


def test_events_of_several_launches_are_in_one_file(place):
    for step in (0, 5):
        log = EventLog(place)
        log.launch(step)
        log.close()
    assert [(row["event"], row["step"]) for row in read_events(place)] == [
        *[("launch", 0), ("init", 0), ("launch", 5), ("init", 5)]
    ]


def test_a_recording_comes_back(place):
    recorder = Recorder(place, batches=4)
    batch = {"x": np.arange(6.0).reshape(2, 3), "file": np.array([1, 2])}
    recorder.remember(7, batch=batch)
    folder = recorder.trip(7, "loss-spike", "too high", Evidence(losses={"loss": 2.0}))
    assert folder == place / "recorder" / "7"
    assert recorded_steps(place) == [7]
    found = read_recording(place, 7)
    np.testing.assert_equal(found.batch, batch)
    assert found.record["guard"] == "loss-spike"


def test_the_report_has_curves_pictures_and_the_end(place):
    metrics = writer(place)
    for step in (1, 2):
        metrics.write(step, {"train/loss": 1.0 / step})
    metrics.write_images(2, {"eval/view": np.full((8, 8, 3), 128, np.uint8)})
    metrics.close()
    mark(place, "DONE", 2)
    path = write_report(place)
    assert path == place / "report.html"
    page = storage.read_text(path)
    assert "data:image/" in page and ">done<" in page and "<svg" in page
    mark(place, None, 2)
    assert not (place / "DONE").exists()


def test_two_hangs_are_in_one_file(place, capsys):
    for _ in range(2):
        dog = Watchdog(place, hang_seconds=0.0, hang_factor=1.0, clock=iter(range(9)).__next__)
        assert dog.check()
    assert storage.read_text(dog.path).count("No step has finished") == 2


def test_event_files_of_tensorboard_are_refused_in_a_bucket(bucket):
    with pytest.raises(ConfigError, match="tensorboard cannot write into gs://"):
        writer(bucket, tensorboard=True)
