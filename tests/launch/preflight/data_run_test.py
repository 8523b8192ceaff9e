"""A few batches through the run's own stream: what is wrong with them is a sentence."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from launch.preflight.data_run import data_row, rate_row
from launch.preflight.topology import topology
from tests.training.toy import CONFIG, ToySource, ToyTask, toy_program
from training.errors import InputError
from training.mesh import Layout, make_mesh
from training.source import Sources


@dataclasses.dataclass(frozen=True)
class Changed(ToySource):
    """The toy's examples with a key changed from some example on."""

    key: str = "x"
    value: float = 0.0
    first: int = 0

    def __getitem__(self, index):
        example = super().__getitem__(index)
        if index >= self.first:
            example[self.key] = np.full_like(example[self.key], self.value)
        return example


class Unreadable(ToySource):
    def __getitem__(self, index):
        if index % 2:
            raise InputError(f"scan {index} is cut off")
        return super().__getitem__(index)


class Broken(ToySource):
    def __getitem__(self, index):
        raise InputError("the disk is gone")


class Narrow(ToySource):
    def __getitem__(self, index):
        example = super().__getitem__(index)
        return example | {"x": example["x"][:4]}


@pytest.fixture
def row_of():
    def row(train, evaluation=None):
        class Task(ToyTask):
            def sources(self):
                return Sources(train, {"validation": evaluation or ToySource(10, start=1000)})

        config = dataclasses.replace(CONFIG, batch_size=8)
        layout = Layout(make_mesh(config.mesh))
        return data_row(toy_program(Task(config), config, layout))

    return row


def test_shapes_and_ranges_of_every_key_are_told(row_of):
    row = row_of(Changed(key="y", value=2.5))
    assert row.state == "pass" and row.facts["read"] == 24
    assert row.facts["keys"]["x"] | {"least": 0, "most": 0} == {
        "shape": [8],
        "dtype": "float32",
        "least": 0,
        "most": 0,
    }
    assert (row.facts["keys"]["y"]["least"], row.facts["keys"]["y"]["most"]) == (2.5, 2.5)
    assert "x float32[8]" in row.sentence and row.facts["per_core"] > 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_name_their_key(row_of, value):
    row = row_of(Changed(key="y", value=value))
    assert row.state == "FAIL"
    assert row.sentence.startswith("batch['y'] has values that are not finite, first in row 0")
    assert len(row.facts["problems"]) == 1


def test_a_batch_that_does_not_fit_the_model_is_refused(row_of):
    row = row_of(Narrow())
    assert row.state == "FAIL" and "the model needs float32[8]" in row.sentence


def test_replaced_examples_are_a_warning_and_too_many_of_them_a_failure(row_of):
    assert row_of(Unreadable()).state == "warn"
    row = row_of(Broken())
    assert row.state == "FAIL" and "the disk is gone" in row.sentence


def test_an_overlap_of_the_splits_is_a_failure(row_of):
    row = row_of(ToySource(), ToySource(10))
    assert row.state == "FAIL" and "make the splits disjoint" in row.sentence


def test_the_hosts_must_read_as_fast_as_the_chips_learn():
    slice_ = topology("v4-32")  # 4 hosts of 240 cores
    fast = rate_row({"per_core": 10.0}, 128, 0.1, slice_)
    assert fast.state == "pass" and fast.facts["cores_needed"] == pytest.approx(32)
    slow = rate_row({"per_core": 1.0}, 128, 0.1, slice_)
    assert slow.state == "warn" and "wait for data" in slow.sentence
