"""The flight recorder through a whole run: NaN at a known step, and replays of what it recorded."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa3d.data import VolumeSource
from tests.failures.toy_run import ToyRun
from tests.training.toy import ToySource, ToyTask
from training.errors import EXIT_GUARD, EXIT_USAGE
from training.loss import Total
from training.program import Program
from training.record.metrics import read_metrics
from training.replay import bad_input, bad_operation
from training.stream import ExampleStream, stack_examples

BAD_STEP, BAD_ROW = 6, 3
# Every loss is above this limit, so that healthy steps are recorded too.
ALWAYS_SPIKES = ("--config.guards.spike_factor=-10.0", "--config.guards.spike_patience=1000")


def arrays(state):
    """The state on the host; keys as their words."""

    def words(leaf):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    return jax.tree.map(words, state)


@pytest.fixture
def poisoned_run(monkeypatch, podvision, tiny_recipe, oct_records, tmp_path):
    """A run with NaN in one row of one batch: outcome, states around that step, work folder."""
    states = {}
    stack, update = ExampleStream.stack, Program.step

    def poisoned(self, step, loaded):
        result = stack(self, step, loaded)
        if step == BAD_STEP - 1:
            result["std"] = result["std"].copy()
            result["std"][BAD_ROW] = np.nan
        return result

    def observed(self, state, batches, variant=None):
        step = int(state.step) + 1
        if step == BAD_STEP:
            states["before"] = arrays(state)
        new, read = update(self, state, batches, variant)
        if step == BAD_STEP:
            states["after"] = arrays(new)
        return new, read

    workdir = tmp_path / "run"
    with monkeypatch.context() as fault:
        fault.setattr(ExampleStream, "stack", poisoned)
        fault.setattr(Program, "step", observed)
        fault.setattr("training.guards.watch.LossSpike.LEAST", 3)
        where = ("--config", tiny_recipe(oct_records), "--workdir", workdir)
        result = podvision("train", *where, *ALWAYS_SPIKES)
    return result, states, workdir


@pytest.mark.slow
def test_nan_at_a_known_step_is_suppressed_recorded_and_replayed(poisoned_run, podvision):
    result, states, workdir = poisoned_run
    assert result.code == 0, result.err
    assert f"nonfinite: the update of step {BAD_STEP} was suppressed" in result.err
    check_that_nothing_moved(states["before"], states["after"])
    skipped = {row["step"]: row.get("train/skipped") for row in read_metrics(workdir)}
    assert skipped[BAD_STEP - 1] == 0 and skipped[BAD_STEP] == skipped[12] == 1
    record = json.loads((workdir / "recorder" / str(BAD_STEP) / "record.json").read_text())
    assert record["guard"] == "nonfinite" and record["losses"]["loss"] == "NaN"
    assert record["state"]["path"].endswith("checkpoints/4")

    replayed = podvision("replay", "--workdir", workdir, "--step", BAD_STEP)
    assert replayed.code == 0, replayed.err
    assert "re-running steps 5 to 5 from the checkpoint of step 4" in replayed.out
    example = np.load(workdir / "recorder" / str(BAD_STEP) / "batch.npz")["index"][BAD_ROW]
    where = f"batch['std'] in row(s) {BAD_ROW}, which are the example(s) {example}"
    assert f"first offending tensor: {where}" in replayed.out
    assert "gradient norms of prediction: encoder nan  predictor nan" in replayed.out

    spiked = json.loads((workdir / "recorder" / "10" / "record.json").read_text())
    assert spiked["guard"] == "loss-spike"
    shutil.rmtree(workdir / "checkpoints" / "12")  # the newest is not the one that is needed
    (workdir / "recorder" / "10" / "batch.npz").rename(workdir / "batch.npz")
    lost = podvision("replay", "--workdir", workdir, "--step", 10)
    assert lost.code == EXIT_USAGE and "the recording is incomplete" in lost.err
    (workdir / "batch.npz").rename(workdir / "recorder" / "10" / "batch.npz")
    replayed = podvision("replay", "--workdir", workdir, "--step", 10)
    assert "first offending tensor: none: every value of the re-run is finite" in replayed.out
    found = re.search(r"^loss: (\S+) \(recorded (\S+)\)$", replayed.out, re.MULTILINE)
    assert float(found[1]) == pytest.approx(float(found[2]), rel=1e-6)
    norms = re.search(r"gradient norms of prediction: encoder (\S+)  predictor (\S+)", replayed.out)
    for group, norm in zip(("encoder", "predictor"), norms.groups()):
        recorded = spiked["gradient_norms"][f"grad_norm/{group}"]
        assert float(norm) == pytest.approx(recorded, rel=1e-3)

    missing = podvision("replay", "--workdir", workdir, "--step", 3)
    assert missing.code == EXIT_USAGE
    assert f"recorded steps in this work folder: {BAD_STEP}, 10, 11, 12" in missing.err


def check_that_nothing_moved(before, after):
    for name in ("params", "opt_state", "ema", "model_state", "key"):
        left, right = (jax.tree.leaves(getattr(state, name)) for state in (before, after))
        # Not every task has a model state.
        assert len(left) == len(right) > 0 or (name == "model_state" and not left and not right)
        for a, b in zip(left, right):
            np.testing.assert_array_equal(a, b)
    assert (int(after.step), int(after.skipped)) == (int(before.step) + 1, int(before.skipped) + 1)


class LogarithmTask(ToyTask):
    """Its loss is not a number as soon as a weight is negative."""

    def loss(self, params, context, batch, key):
        output = super().loss(params, context, batch, key)
        broken = jnp.log(params["dense"]["kernel"].min())
        total = output.terms["error"]
        return dataclasses.replace(output, terms={"error": Total(total.sum + broken, total.weight)})


def test_a_nan_that_is_made_by_the_computation_is_found_at_its_line():
    run = ToyRun(LogarithmTask())
    host = stack_examples([ToySource()[i] for i in range(16)])
    added = {"position": np.arange(16, dtype=np.uint32), "index": np.arange(16, dtype=np.int32)}
    batches = run.layout.put_batches([host | added], 16)
    assert bad_input(run.state, host | added) == ""
    with jax.set_mesh(run.layout.mesh):
        found = bad_operation(run.program, run.state, batches)
    line = inspect.getsourcelines(LogarithmTask)[1] + 5
    assert found == f"invalid value (nan) encountered in log at replay_test.py:{line}"
    spoilt = jax.tree.map(lambda x: x.at[0].set(jnp.inf), run.state.params)
    state = dataclasses.replace(run.state, params=spoilt)
    assert bad_input(state, host | added) == "params/dense/bias"


@pytest.mark.slow
def test_nan_in_every_batch_stops_the_run_with_3(
    monkeypatch, podvision, tiny_recipe, oct_records, tmp_path
):
    getitem = VolumeSource.__getitem__
    monkeypatch.setattr(
        VolumeSource,
        "__getitem__",
        lambda self, index: getitem(self, index) | {"mean": np.float32(np.inf)},
    )
    result = podvision(
        "train", "--config", tiny_recipe(oct_records), "--workdir", tmp_path / "run",
        "--config.guards.max_consecutive_skips=3", "--config.evaluation.at_start=False",
    )  # fmt: skip
    assert result.code == EXIT_GUARD
    assert "3 updates in a row were suppressed (nonfinite), the last at step 3" in result.err
    assert "[guard consecutive-skips;" in result.err
    assert not (tmp_path / "run" / "DONE").exists()
    assert sorted(path.name for path in (tmp_path / "run" / "recorder").iterdir()) == list("123")
