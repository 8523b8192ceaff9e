"""Failure 4 through the whole loop: a suppressed update is recorded, and the run goes on."""

from __future__ import annotations

import dataclasses
import json

from tests.failures.optimization_test import PoisonedSource
from tests.failures.toy_run import CONFIG
from tests.training.toy import ToySource, task_with
from training.config import CheckpointConfig, Duration, EvaluationConfig, LogConfig
from training.loop import fit
from training.source import Sources


def test_4_a_suppressed_update_after_a_checkpoint_is_recorded_and_the_run_ends_well(tmp_path):
    train = PoisonedSource(64, 0, frozenset({13}))
    sources = Sources(train, {"validation": ToySource(10, 1000)})
    config = dataclasses.replace(
        CONFIG,
        total=Duration(updates=8),
        checkpoint=CheckpointConfig(every=Duration(updates=2)),
        evaluation=EvaluationConfig(every=Duration(updates=8), batch_size=8, at_start=False),
        log=LogConfig(every=1),
    )
    assert fit(task_with(config, sources=lambda: sources), tmp_path) == "done"
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert max(row.get("train/skipped", 0) for row in rows) == 2
    recordings = list((tmp_path / "recorder").iterdir())
    assert recordings, "a suspicious step leaves a recording"
    guards = json.loads((tmp_path / "guards.json").read_text())
    (nonfinite,) = [row for row in guards if row["name"] == "nonfinite"]
    assert not nonfinite["passed"] and "was suppressed (nonfinite)" in nonfinite["sentence"]
