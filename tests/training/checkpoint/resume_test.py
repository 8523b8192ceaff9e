"""A stopped run goes on as if it had never stopped, and only where it can."""

from __future__ import annotations

import dataclasses
import json

import jax.numpy as jnp
import pytest

from tests.failures.optimization_test import PoisonedSource
from tests.failures.toy_run import CONFIG
from tests.training.toy import ToySource, task_with
from training import distributed, loop
from training.checkpoint.diff import SavedDescription, compare, leaf_specs
from training.checkpoint.store import CheckpointStore
from training.config import CheckpointConfig, Duration, EvaluationConfig, LogConfig
from training.errors import ConfigError
from training.record.run_folder import DONE
from training.source import Sources

TOTAL, STOP = 8, 4  # one of the first four updates is suppressed


def toy_task(train=None):
    """Sixteen of 64 examples a batch; one of them is not finite."""
    train = train or PoisonedSource(64, 0, frozenset({13}))
    config = dataclasses.replace(
        CONFIG,
        total=Duration(updates=TOTAL),
        checkpoint=CheckpointConfig(every=Duration(updates=TOTAL)),
        evaluation=EvaluationConfig(every=Duration(updates=TOTAL), batch_size=8, at_start=False),
        log=LogConfig(every=1),
    )
    sources = Sources(train, {"validation": ToySource(10, 1000)})
    return task_with(config, sources=lambda: sources)


@pytest.fixture
def saves_are_safe(monkeypatch):
    """Fails where DONE is written while a save is still under way."""
    under_way = []
    save, wait, mark = CheckpointStore.save, CheckpointStore.wait, loop.mark

    def begun(store, step, *arguments, **options):
        under_way.append(step)
        return save(store, step, *arguments, **options)

    def ended(store):
        wait(store)
        under_way.clear()

    def marked(workdir, marker, step):
        assert marker != DONE or not under_way, f"DONE before the save of step {under_way} is safe"
        mark(workdir, marker, step)

    monkeypatch.setattr(CheckpointStore, "save", begun)
    monkeypatch.setattr(CheckpointStore, "wait", ended)
    monkeypatch.setattr(loop, "mark", marked)


def stop_after(step, patch):
    """The run is asked to stop once so many updates are made, as by a signal at that moment."""
    make = loop.Run._make

    def made(run, chunk):
        make(run, chunk)
        if run.step == step:
            patch.setattr(distributed, "stop_requested", lambda: True)

    patch.setattr(loop.Run, "_make", made)


def losses(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: (row["train/loss"], row["train/skipped"])
            for row in rows if "train/loss" in row}  # fmt: skip


def test_stopped_run_goes_on_with_the_same_batches_and_refuses_other_data(
    tmp_path, monkeypatch, saves_are_safe
):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert loop.fit(toy_task(), whole) == "done"
    with monkeypatch.context() as patch:
        stop_after(STOP, patch)
        assert loop.fit(toy_task(), parted) == "preempted"
    assert losses(parted)[STOP][1] == 1, "the stop comes after a suppressed update"
    others = PoisonedSource(64, 64, frozenset({13}))
    with pytest.raises(ConfigError, match=r"training data changed .*fingerprint"):
        loop.fit(toy_task(others), parted)
    assert loop.fit(toy_task(), parted) == "done"
    later = {step: row for step, row in losses(whole).items() if step > STOP}
    assert len(later) == TOTAL - STOP
    assert {step: row for step, row in losses(parted).items() if step > STOP} == later


def test_transposed_array_does_not_fit():
    saved = SavedDescription("runs/a", 1, leaf_specs({"params": {"kernel": jnp.zeros((2, 3))}}))
    diff = compare(saved, {"params": {"kernel": jnp.zeros((3, 2))}})
    assert not diff.empty and "saved (2, 3)  model (3, 2)" in diff.text()
