"""A recording holds exactly the batch of the step, and reading it needs no pickle."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest

from training.errors import InputError
from training.record.recorder import Evidence, Recorder, is_recorded, read_recording, recorded_steps


def make_batch(seed=0):
    random = np.random.default_rng(seed)
    return {
        "image": random.integers(0, 255, (4, 6, 6, 3), dtype=np.uint8),
        "volume": random.normal(size=(4, 8)).astype(np.float32),
        "half": random.normal(size=(4, 2)).astype(ml_dtypes.bfloat16),
        "id": np.array(["a", "b", "c", "d"]),
        "file": np.arange(4),
    }


def assert_same_batch(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        np.testing.assert_array_equal(found[name].view(np.uint8), value.view(np.uint8))


def test_the_batch_and_the_evidence_come_back_bit_identically(tmp_path):
    recorder = Recorder(tmp_path, batches=3)
    for step in range(6):
        recorder.remember(step, positions=np.arange(4) + 4 * step, batch=make_batch(step))
    evidence = Evidence(
        losses={"photometric": float("nan")},
        gradient_norms={"photometric": {"means": np.float32(0.5), "opacities": float("inf")}},
        key_data=np.array([1, 2**32 - 1], np.uint32),
        key_impl="fry",
        checkpoint="checkpoints/4",
    )
    folder = recorder.trip(5, "nonfinite", "The loss is not finite.", evidence)
    assert folder == tmp_path / "recorder" / "5"
    recording = read_recording(tmp_path, 5)
    assert_same_batch(recording.batch, make_batch(5))
    record = recording.record
    assert [seen["step"] for seen in record["batches"]] == [3, 4, 5]
    assert record["batches"][-1]["positions"] == [20, 21, 22, 23]
    assert record["guard"] == "nonfinite" and record["key"]["data"] == [1, 2**32 - 1]
    assert record["gradient_norms"]["photometric"] == {"means": 0.5, "opacities": "Infinity"}
    assert record["losses"] == {"photometric": "NaN"}
    assert record["state"] == {"path": "checkpoints/4", "kind": "earlier checkpoint"}


def test_the_step_before_the_newest_is_still_held_but_older_ones_are_not(tmp_path):
    recorder = Recorder(tmp_path, batches=8)
    for step in range(5):
        recorder.remember(step, ids=["x"], batch=make_batch(step))
    recorder.trip(3, "loss-spike", "spike", Evidence())
    recorder.trip(1, "loss-spike", "spike", Evidence())
    assert_same_batch(read_recording(tmp_path, 3).batch, make_batch(3))
    older = read_recording(tmp_path, 1)
    assert older.batch == {} and older.record["batch"] is None
    assert len(older.record["batches"]) == 5


def test_the_number_of_recordings_is_limited_and_said(tmp_path):
    recorder = Recorder(tmp_path, 1)
    for step in range(1, 41):
        recorder.trip(step, "nonfinite", "again", Evidence())
    assert recorded_steps(tmp_path) == [1, 2, 3, 4, 5, 8, 16, 32]
    record = read_recording(tmp_path, 32).record
    assert record["trip"] == 32 and "power of two" in record["limit"]
    assert [trip for trip in range(1, 10) if is_recorded(trip)] == [1, 2, 3, 4, 5, 8]


def test_rows_of_all_processes_are_joined(tmp_path):
    batch = make_batch()
    for process in (1, 0):
        rows = slice(2 * process, 2 * process + 2)
        recorder = Recorder(tmp_path, 2, process=process, process_count=2)
        part = {name: value[rows] for name, value in batch.items()}
        recorder.remember(9, ids=part["id"], batch=part)
        recorder.trip(9, "nonfinite", "NaN", Evidence())
    assert_same_batch(read_recording(tmp_path, 9).batch, batch)
    other = json.loads((tmp_path / "recorder" / "9" / "record-1.json").read_text())
    assert other["batches"][0]["ids"] == ["c", "d"]


def test_a_missing_recording_names_those_that_exist(tmp_path):
    Recorder(tmp_path, 1).trip(7, "x", "y", Evidence())
    with pytest.raises(InputError, match="recorded steps in this work folder: 7"):
        read_recording(tmp_path, 8)


def test_a_missing_or_pickled_batch_is_refused(tmp_path):
    folder = Recorder(tmp_path, 1).trip(7, "x", "y", Evidence(), {"a": np.zeros(2)})
    np.savez(folder / "batch.npz", a=np.array([{"code": 1}], dtype=object))
    with pytest.raises(InputError, match="cannot be read"):
        read_recording(tmp_path, 7)
    (folder / "batch.npz").unlink()
    with pytest.raises(InputError, match="recording is incomplete"):
        read_recording(tmp_path, 7)


def test_object_arrays_are_not_written(tmp_path):
    batch = {"a": np.array([{}], dtype=object)}
    with pytest.raises(ValueError, match=r"[Oo]bject arrays"):
        Recorder(tmp_path, 1).trip(7, "x", "y", Evidence(), batch)
