"""What an evaluation gives and leaves behind: one source or several, the task's or given ones."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from tests.failures.toy_run import ToyRun
from tests.training.toy import ToySource, ToyTask
from training.evaluation import evaluate_state, read_evaluations, write_evaluation
from training.record.report import write_report
from training.source import Sources
from training.verdict import Evaluation, Table


class TellingTask(ToyTask):
    """Its evaluation has a picture and a table as well."""

    def evaluate(self, state, source, layout):
        result = super().evaluate(state, source, layout)
        rows = [(source.identity(0), result.metrics["error"])]
        table = Table("Error of each class", ("class", "error"), rows, ("first",))
        images = {"first": np.full((4, 4, 3), len(source), np.uint8)}
        return dataclasses.replace(result, images=images, tables={"classes": table})


class TwoSources(TellingTask):
    def sources(self):
        train = super().sources().train
        return Sources(train, {"near": ToySource(10, 1000), "far": ToySource(6, 5000)})


def evaluated(task, sources=None):
    run = ToyRun(task)
    with jax.set_mesh(run.layout.mesh):
        return evaluate_state(run.program, run.state, sources)


def test_names_are_prefixed_only_where_there_are_several_sources():
    one, two = evaluated(TellingTask()), evaluated(TwoSources())
    assert list(one.metrics) == ["error"]
    assert list(two.metrics) == ["near/error", "far/error"]
    assert list(two.images) == ["near/first", "far/first"]
    assert list(two.tables) == ["near/classes", "far/classes"]
    assert two.tables["far/classes"].pictures == ("far/first",)
    assert one.tables["classes"].pictures == ("first",)
    assert two.metrics["near/error"] == one.metrics["error"] != two.metrics["far/error"]


def test_given_sources_take_the_place_of_the_tasks_own():
    given = evaluated(TwoSources(), {"given": ToySource(6, 5000)})
    assert given.metrics == {"error": evaluated(TwoSources()).metrics["far/error"]}


@pytest.mark.parametrize("length", [1, 10, 16])
def test_what_fills_up_the_last_batch_is_not_counted(length):
    """The mean over the source is that of its examples, in float64."""
    run, source = ToyRun(), ToySource(length, 300)
    with jax.set_mesh(run.layout.mesh):
        found = evaluate_state(run.program, run.state, {"given": source}).metrics["error"]
    dense = jax.tree.map(lambda x: np.asarray(x, np.float64), run.state.params["dense"])
    errors = [
        np.sum((source[i]["x"].astype(np.float64) @ dense["kernel"] + dense["bias"] - y) ** 2)
        for i in range(length)
        for y in [source[i]["y"].astype(np.float64)]
    ]
    # A difference of eight products each, squared and added in float32.
    assert found == pytest.approx(np.mean(errors), rel=float(64 * np.finfo(np.float32).eps))


def test_metrics_and_tables_are_written_and_the_report_shows_them(tmp_path):
    table = Table("Error of each class", ("class", "error"), [("cup <3>", 0.25), ("box", 0.5)])
    result = Evaluation({"error": 0.375}, {}, {"near/classes": table})
    path = write_evaluation(tmp_path, 7, result)
    assert json.loads(path.read_text()) == {"step": 7, "error": 0.375}
    assert read_evaluations(tmp_path, 7) == [{"step": 7, "error": 0.375}]
    assert (tmp_path / "tables" / "near_classes.json").exists()
    write_report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "Error of each class" in page and "cup &lt;3&gt;" in page and "0.25" in page
