"""The guard book and the checks before the first update: each trips on its fault only."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from tests.training.toy import ToySource, ToyTask, task_with, toy_program
from training.capabilities import Guards
from training.config import GuardConfig, LoaderConfig, MeshConfig, TrainConfig
from training.errors import ConfigError, GuardStop
from training.guards.book import START, GuardBook
from training.guards.start import batch_keys, phase_windows, run_start_guards, split_overlap
from training.loss import LossTerm
from training.mesh import Layout, make_mesh
from training.source import Sources
from training.stream import ExampleStream
from training.verdict import Description, Verdict

FAILED = Verdict("split-overlap", False, "they overlap; make them disjoint")


def start(task, guards=GuardConfig(), rows=None):  # noqa: B008
    config = TrainConfig("toy", batch_size=16, mesh=MeshConfig(), guards=guards)
    program = toy_program(task, config, Layout(make_mesh(config.mesh)))
    rows = program.layout.rows(16) if rows is None else rows
    stream = ExampleStream(task.sources().train, 0, 16, rows, LoaderConfig(workers=1))
    book = GuardBook(guards)
    with jax.set_mesh(program.layout.mesh):
        run_start_guards(book, program, stream, None, 0)
    return book


def test_a_healthy_task_passes_every_check_and_each_is_in_the_book(tmp_path):
    book = start(ToyTask())
    book.write(tmp_path)
    rows = json.loads((tmp_path / "guards.json").read_text())
    names = [row["name"] for row in rows]
    assert names == [
        "batch-arithmetic",
        "schedule",
        "optimizer-groups",
        "phase-window",
        "split-overlap",
        "unique-ids",
        "batch-keys",
    ]
    assert all(row["passed"] and row["checked"] == 1 and row["when"] == START for row in rows)
    assert "64 training identities" in rows[4]["sentence"]
    assert list(tmp_path.iterdir()) == [tmp_path / "guards.json"]


def test_a_verdict_stops_the_run_unless_it_passed_is_a_warning_or_is_off():
    with pytest.raises(GuardStop, match=r"make them disjoint \[guard split-overlap; see docs"):
        GuardBook(GuardConfig()).require(FAILED, START)
    GuardBook(GuardConfig(off=("split-overlap",))).require(FAILED, START)
    GuardBook(GuardConfig()).require(dataclasses.replace(FAILED, warning=True), START)
    GuardBook(GuardConfig()).require(dataclasses.replace(FAILED, passed=True), START)


def test_the_book_keeps_the_first_failure_and_counts_the_rest():
    book = GuardBook(GuardConfig())
    passed = Verdict("split-overlap", True, "disjoint")
    for verdict in (passed, FAILED, dataclasses.replace(FAILED, sentence="later"), passed):
        book.record(verdict, START)
    (row,) = book.rows.values()
    assert row == {
        "name": "split-overlap",
        "when": START,
        "checked": 4,
        "passed": False,
        "sentence": FAILED.sentence,
    }


def test_a_guard_that_is_off_says_so_once():
    book = GuardBook(GuardConfig(off=("split-overlap",)))
    for _ in range(3):
        assert not book.record(FAILED, START)
    sentence = book.rows["split-overlap"]["sentence"]
    assert sentence == f"switched off by config.guards.off; {FAILED.sentence}"


def test_a_declared_guard_is_listed_before_it_has_anything_to_look_at():
    book = GuardBook(GuardConfig())
    book.declare("loss-spike", "every step", "no spike")
    assert book.rows["loss-spike"]["checked"] == 0
    book.record(Verdict("loss-spike", False, "a spike", warning=True), "every step")
    book.declare("loss-spike", "every step", "no spike")
    assert book.rows["loss-spike"]["sentence"] == "a spike"


@pytest.mark.parametrize(
    ("window", "sentence"),
    [
        ((50, 50), r"the window \(50, 50\) of error is empty"),
        ((60, 50), r"the window \(60, 50\) of error is empty"),
        ((-5, 50), r"the window \(-5, 50\) of error starts before update 0"),
        ((100, 200), "error starts at update 100, but the run ends at 100"),
    ],
)
def test_a_phase_that_never_comes_is_refused(window, sentence):
    task = task_with(loss_terms={"error": LossTerm(window=window)})
    with pytest.raises(ConfigError, match=sentence):
        start(task)
    assert not phase_windows(task, 100).passed
    start(task, GuardConfig(off=("phase-window",)))


@pytest.mark.parametrize("window", [None, (0, 1), (99, 100), (10, 1000)])
def test_a_phase_that_begins_inside_the_run_passes(window):
    assert phase_windows(task_with(loss_terms={"error": LossTerm(window=window)}), 100).passed


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"boxes": ((4,), "float32")}, "lacks the key 'boxes'; it has index, position, w, x, y"),
        (
            {"x": ((9,), "float32")},
            r"batch\['x'\] is float32\[8\] per example, but .* float32\[9\]",
        ),
        ({"x": ((8,), "bfloat16")}, "but the model needs bfloat16"),
    ],
)
def test_a_batch_that_does_not_fit_the_model_is_refused(keys, sentence):
    task = task_with(describe=lambda: Description({}, 0.0, keys))
    with pytest.raises(ConfigError, match=sentence):
        start(task)
    batch = {"boxes": np.zeros((2, 4), np.float32)}
    fits = task_with(describe=lambda: Description({}, 0.0, {"boxes": ((4,), "float32")}))
    assert batch_keys(fits, batch).passed


def test_an_example_in_both_splits_is_refused_and_named():
    shared = Sources(ToySource(64), {"test": ToySource(10, 100), "validation": ToySource(10, 60)})
    with pytest.raises(GuardStop, match=r"4 of the identities in the split 'validation'.*'60'"):
        start(task_with(sources=lambda: shared))
    assert not split_overlap(ToySource(64), {"validation": ToySource(10, 63)}).passed
    assert split_overlap(ToySource(64), {"validation": ToySource(10, 64)}).passed
    assert split_overlap(ToySource(64), {}).passed


def test_rows_that_are_read_twice_are_refused():
    with pytest.raises(GuardStop, match="8 of the 16 examples of the global batch are read by"):
        start(ToyTask(), rows=np.tile(np.arange(8), 2))


def test_the_proof_of_a_system_can_stop_the_run_or_only_warn():
    blind = Verdict("sees-pixels", False, "the loss does not depend on the pixels")
    with pytest.raises(GuardStop, match="does not depend on the pixels"):
        start(task_with(guards=lambda: Guards(start=lambda *_: [blind])))
    warned = dataclasses.replace(blind, warning=True)
    book = start(task_with(guards=lambda: Guards(start=lambda *_: [warned])))
    assert book.rows["sees-pixels"]["passed"] is False


def test_a_misspelled_guard_in_off_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match="did you mean loss-spike"):
        GuardBook(GuardConfig(off=("loss-spikes",)))
