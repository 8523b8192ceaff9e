"""Stages run in turn, each from the one before, and are resumed where they stopped."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from tests.training.checkpoint.resume_test import stop_after
from tests.training.toy import ToyTask
from training.checkpoint.store import CheckpointReader
from training.config import CheckpointConfig, Duration, EvaluationConfig, MeshConfig, TrainConfig
from training.errors import ConfigError
from training.loop import fit
from training.pipeline import run_pipeline
from training.record.progress import format_number
from training.record.report.pipeline import quality, stages_of
from training.record.report.read import read_run
from training.registry import load_config, load_stages
from training.state import TrainState

STAGE = TrainConfig(
    "toy",
    batch_size=16,
    mesh=MeshConfig(data=1, model=-1),
    total=Duration(updates=4),
    evaluation=EvaluationConfig(every=Duration(updates=4), batch_size=8, at_start=False),
    checkpoint=CheckpointConfig(every=Duration(updates=2)),
)


def from_previous(config, **changes):
    checkpoint = dataclasses.replace(config.checkpoint, init_from="previous", **changes)
    return dataclasses.replace(config, checkpoint=checkpoint)


def run(stages, workdir, said=None):
    def train(config, folder):
        return fit(ToyTask(config), folder)

    return run_pipeline(stages, workdir, train, [].append if said is None else said.append)


def arrays_at(workdir, step, part="params") -> dict[str, np.ndarray]:
    """Leaves of a part of the saved state, by path."""
    reader = CheckpointReader(workdir)
    shapes = {
        path: jax.ShapeDtypeStruct(spec.shape, spec.dtype)
        for path, spec in reader.describe(step).leaves.items()
        if path.startswith(f"{part}/")
    }
    return {name: np.asarray(x) for name, x in reader.restore_subtree(step, shapes).items()}


@pytest.fixture
def first_states(monkeypatch):
    """The state that each stage began its first update with."""
    from training.program import Program

    seen: dict[int, TrainState] = {}
    step = Program.step

    def observed(self, state, batches, variant=None):
        seen.setdefault(id(self), jax.device_get(state.params))
        return step(self, state, batches, variant)

    monkeypatch.setattr(Program, "step", observed)
    return seen


def test_each_stage_starts_from_the_parameters_of_the_one_before(tmp_path, first_states):
    stages = [("warm", STAGE), ("main", from_previous(STAGE))]
    assert run(stages, tmp_path) == "done"
    assert (tmp_path / "warm" / "DONE").exists() and (tmp_path / "main" / "DONE").exists()
    _, start_of_main = first_states.values()
    handed_on = arrays_at(tmp_path / "warm", 4)
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(
            start_of_main["dense"][name], handed_on[f"params/dense/{name}"]
        )


def test_a_stopped_pipeline_goes_on_in_the_stage_where_it_stopped(tmp_path, monkeypatch):
    stages = [("warm", STAGE), ("main", from_previous(STAGE))]
    assert run(stages[:1], tmp_path) == "done"
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        assert run(stages, tmp_path) == "preempted"
    assert (tmp_path / "main" / "PREEMPTED").exists()
    said = []
    assert run(stages, tmp_path, said) == "done"
    assert said == ["stage 1 of 2, warm: done before", "stage 2 of 2, main"]
    undisturbed = tmp_path / "undisturbed"
    assert run(stages, undisturbed) == "done"
    for name, values in arrays_at(tmp_path / "main", 4).items():
        np.testing.assert_array_equal(values, arrays_at(undisturbed / "main", 4)[name])


def test_a_stage_that_is_done_may_not_change_afterward(tmp_path):
    stages = [("warm", STAGE), ("main", from_previous(STAGE))]
    run([*stages[:1], ("main", STAGE)], tmp_path)
    other = dataclasses.replace(STAGE, seed=7)
    with pytest.raises(ConfigError, match=r"config\.seed from 0 to 7"):
        run([("warm", other), ("main", from_previous(STAGE))], tmp_path)


def test_the_first_stage_has_none_before_it(tmp_path):
    with pytest.raises(ConfigError, match="no stage comes before"):
        run([("warm", from_previous(STAGE)), ("main", STAGE)], tmp_path)
    assert not list(tmp_path.iterdir())


PIPELINE = """
def get_pipeline(arg):
    one = {"system": "splats", "seed": int(arg or 0)}
    return [("rgb", one), ("sds", {**one, "checkpoint": {"init_from": "previous"}})]
"""


def test_overrides_go_to_all_stages_or_to_one(tmp_path):
    (tmp_path / "three.py").write_text(PIPELINE)
    overrides = ["batch_size=2", "sds.batch_size=4", "rgb.log.every=3"]
    stages = dict(load_stages(f"{tmp_path / 'three.py'}:5", overrides))
    assert [(name, c.batch_size, c.seed, c.name) for name, c in stages.items()] == [
        ("rgb", 2, 5, "rgb"),
        ("sds", 4, 5, "sds"),
    ]
    assert stages["rgb"].log.every == 3 and stages["sds"].log.every == 10
    with pytest.raises(ConfigError, match="pipeline of the stages rgb, sds"):
        load_config(str(tmp_path / "three.py"))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("return 3", "must return a list"),
        ("return []", "names its stages"),
        ("return [('a b', {'system': 'splats'})]", "a name of its own"),
        ("return [('a', {'system': 'splats'})] * 2", "a name of its own"),
        ("return [('a', 3)]", "instead of a ConfigDict"),
        ("return [('a', {'system': 'splats', 'sead': 1})]", "did you mean seed"),
    ],
)
def test_a_pipeline_that_is_none_is_refused(tmp_path, body, sentence):
    (tmp_path / "bad.py").write_text(f"def get_pipeline(arg):\n    {body}\n")
    with pytest.raises(ConfigError, match=sentence):
        load_stages(str(tmp_path / "bad.py"))


def test_model_state_and_renamed_leaves_are_handed_on(tmp_path, first_states):
    """The second stage takes the kernel from the first one's average, and its counter."""
    averaged = dataclasses.replace(
        STAGE, ema=dataclasses.replace(STAGE.ema, kind="constant", start=0.5)
    )
    rename = ((r"params/(.*)", r"old/\1"), (r"ema/(.*)", r"params/\1"))
    second = from_previous(STAGE, init_rename=rename, init_include=("params/.*", "model_state/.*"))
    assert run([("warm", averaged), ("main", second)], tmp_path) == "done"
    _, start = first_states.values()
    ema = arrays_at(tmp_path / "warm", 4, "ema")["ema/dense/kernel"]
    np.testing.assert_array_equal(start["dense"]["kernel"], ema)
    seen = arrays_at(tmp_path / "main", 4, "model_state")["model_state/seen"]
    assert int(seen) == 2 * 4 * 16, "the counter of examples went on"
    config = json.loads((tmp_path / "main" / "config.json").read_text())["config"]
    assert config["checkpoint"]["init_from"] == str(tmp_path / "warm")


def test_one_report_shows_what_each_stage_reached_over_time(tmp_path):
    run([("warm", STAGE), ("main", from_previous(STAGE))], tmp_path)
    assert stages_of(tmp_path) == ["warm", "main"] and stages_of(tmp_path / "warm") == []
    page = (tmp_path / "report.html").read_text()
    assert "warm, then main" in page and "https://" not in page
    assert page.index('href="warm/report.html"') < page.index('href="main/report.html"')
    runs = {name: read_run(tmp_path / name) for name in ("warm", "main")}
    errors = {name: own.curves["eval/error"][1][-1] for name, own in runs.items()}
    for error in errors.values():
        assert format_number(float(error)) in page
    (chart,) = [chart for chart, _ in quality(runs) if chart.title == "error"]
    ends = [float(line.steps[-1]) for line in chart.series]
    # Time goes on from stage to stage, and ends with the last evaluation of the last one.
    walls = [own.goodput["wall"] / 60 for own in runs.values()]
    assert 0 < ends[0] <= walls[0] < ends[1] <= sum(walls)
