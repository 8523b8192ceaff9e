"""Gradients of the data terms, apart from the regularizers, and the guard that watches them."""

from __future__ import annotations

import json
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from splats.checks import start as start_checks
from splats.checks.gradient_health import GradientHealth
from splats.losses import regularizers as regularizers
from splats.task import SplatTask
from tests.splats.scenes import (
    batches,
    losses,
    make_program,
    small_config,
    small_scene,
    small_task,
    task_of,
)
from training.config import CheckpointConfig, Duration, EvaluationConfig, GuardConfig, LogConfig
from training.errors import GuardStop
from training.guards.watch import watches
from training.loop import fit
from training.mesh import make_mesh
from training.task import with_config

pytestmark = pytest.mark.usefixtures("quick_compilation")

REGULARIZED = losses(opacity=0.01, scale=0.02)


def healthy(**changes):
    """Metrics of an update of a young run: round Gaussians, harmonics of degree 0."""
    norms = {"means": 1.4e-2, "opacities": 1.4e-2, "scales": 2.1e-2, "sh0": 6.3e-3}
    norms |= {"quats": 9e-10, "shN": 0.0}
    row = {f"grad_norm_data/{name}": norm for name, norm in norms.items()}
    return row | {"visible": 240.0, "reached_fraction": 0.9, "replay": 0.0} | changes


def findings(rows):
    watch = GradientHealth(5)
    return [watch.check(step, row) for step, row in enumerate(rows, start=1)]


def test_a_young_run_without_rotations_and_harmonics_is_healthy():
    assert findings([healthy()] * 50) == [None] * 50
    assert findings([healthy(**{"grad_norm_data/quats": 0.0})] * 50) == [None] * 50


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("name", ["means", "opacities", "scales", "sh0"])
def test_a_data_gradient_that_is_zero_or_not_finite_stops_the_run(name, bad):
    found = findings([healthy()] * 7 + [healthy(**{f"grad_norm_data/{name}": bad})] * 5)
    assert found[:7] == [None] * 7 and found[7].warning and found[8:11] == [None] * 3
    assert not found[11].warning and found[11].name == "gradient-health"
    for part in (f"gradient to {name} (", f"{name} {bad:.1e}", "up to step 12", "podvision replay"):
        assert part in found[11].sentence


def test_updates_that_see_no_gaussian_stop_the_run_with_what_to_check():
    found = findings([healthy(visible=0.0, reached_fraction=0.0)] * 5)
    assert [f.warning for f in found if f] == [True, False]
    assert "no Gaussian was visible for 5 updates in a row, up to step 5" in found[4].sentence
    assert "poses of the cameras" in found[4].sentence


def test_one_black_photograph_in_an_epoch_is_said_once_and_stops_nothing():
    epoch = [healthy()] * 20 + [healthy(**{"grad_norm_data/sh0": 0.0})] * 2
    found = [f for f in findings(epoch * 30) if f]
    assert len(found) == 1 and found[0].warning and "step 21" in found[0].sentence


def test_few_reached_gaussians_are_a_warning_given_once():
    found = findings([healthy(reached_fraction=0.31)] * 40)
    said = [(step, f) for step, f in enumerate(found, start=1) if f]
    assert [step for step, _ in said] == [5] and said[0][1].warning
    assert "only 31% of the Gaussians in view at step 5" in said[0][1].sentence
    single = ([healthy(reached_fraction=0.1)] + [healthy()] * 3) * 10
    assert findings(single) == [None] * 40


def test_an_update_held_back_for_more_capacity_is_not_judged():
    held = healthy(visible=0.0, replay=1.0)
    assert findings([held] * 50) == [None] * 50


def test_the_guard_can_be_switched_off():
    def names(config):
        return [
            watch.name
            for watch in watches(config, small_task().loss_terms, small_task().guards(), 1)
        ]

    assert "gradient-health" in names(GuardConfig())
    assert "gradient-health" not in names(GuardConfig(off=("gradient-health",)))


def metrics_of_first_update(program):
    with jax.set_mesh(program.layout.mesh):
        state = program.initial_state()
        state, read = program.step(state, batches(program, range(1)))
        return read()[0], jax.device_get(state.model_state)


@pytest.fixture(scope="module")
def two_views():
    """A program whose updates see two views."""
    return make_program(small_task(losses=REGULARIZED, batch_size=2))


@pytest.fixture(scope="module")
def first_update(two_views):
    """Metrics of one update on two views, and what it has seen."""
    return metrics_of_first_update(two_views)


def test_norms_are_those_of_the_data_terms_and_of_the_regularizers_alone(two_views, first_update):
    metrics, model_state = first_update
    seen, count = model_state.gradients.views, model_state.visible.sum()
    assert count == (seen > 0).sum() and seen.max() == 2 and seen.min() == 0
    program, task = two_views, two_views.task
    with jax.set_mesh(program.layout.mesh):
        state = program.initial_state()
        batch = jax.tree.map(lambda leaf: leaf[0], batches(program, range(1)))
        gaussians = state.params["gaussians"]
        data = {
            n: t.coefficient if n in ("l1", "ssim") else 0.0 for n, t in task.loss_terms.items()
        }
        objective = partial(start_checks._objective, task)
        inputs = gaussians, data, state, batch, program.resident
        gradients, _ = jax.jit(jax.grad(objective, has_aux=True))(*inputs)
    for name, leaf in gradients.items():
        norm = float(jnp.linalg.norm(leaf.ravel()))
        # Round Gaussians have only rounding errors in rotation.
        tolerance = {"abs": 1e-7} if name == "quats" else {"rel": 1e-4}
        assert metrics[f"grad_norm_data/{name}"] == pytest.approx(norm, **tolerance), name
    assert metrics["grad_norm_data/shN"] == 0.0  # degree 0
    # d/dx of 0.01 mean(sigmoid(x)) and of 0.02 mean(exp(x)) over what the two views see; all
    # opacities begin at 0.1.
    norms = {
        "opacities": 0.01 * 0.09 * np.linalg.norm(seen) / seen.sum(),
        "scales": 0.02
        / 3
        * np.linalg.norm(np.exp(gaussians["scales"]) * seen[:, None])
        / seen.sum(),
    }
    for name, norm in norms.items():
        assert metrics[f"grad_norm_regularizer/{name}"] == pytest.approx(norm, rel=1e-3)
    reached = np.asarray(gradients["means"]).any(axis=1).sum()
    assert metrics["reached_fraction"] == pytest.approx(reached / count, abs=1e-6)
    assert 0.5 < metrics["reached_fraction"] <= 1.0


def test_micro_batches_have_the_norms_of_the_whole_batch(first_update):
    whole, model_state = first_update
    task = small_task(losses=REGULARIZED, batch_size=2, accumulation=2)
    parts, state_of_parts = metrics_of_first_update(make_program(task))
    np.testing.assert_array_equal(state_of_parts.visible, model_state.visible)
    for name in whole:
        if name.startswith(("grad_norm_", "reached")) and "quats" not in name:
            assert parts[name] == pytest.approx(whole[name], rel=1e-4, abs=1e-9), name


def test_cameras_that_look_away_stop_the_run(two_views):
    program = two_views
    poses = np.asarray(program.resident["world_to_camera"]).copy()
    poses[:, 2, 3] -= 100.0  # everything is behind the cameras
    away = program.layout.replicate(program.task.resident() | {"world_to_camera": poses})
    guards, found = watches(GuardConfig(), program.task.loss_terms, program.task.guards(), 1), None
    with jax.set_mesh(program.layout.mesh), pytest.MonkeyPatch.context() as patch:
        state = program.initial_state()
        for step in range(12):
            if step == 3:
                patch.setitem(program.__dict__, "resident", away)
            state, read = program.step(state, batches(program, range(step, step + 1)))
            looks = [watch.check(step + 1, read()[0]) for watch in guards]
            found = next((finding for finding in looks if finding and not finding.warning), None)
            if found:
                break
    assert found and found.name == "gradient-health" and step + 1 == 8
    assert "no Gaussian was visible for 5 updates in a row, up to step 8" in found.sentence


FAULT_AT = 26  # applied updates


class DetachedOpacities(SplatTask):
    """From an update on, rendering no longer depends on opacities; their regularizer goes on."""

    def loss(self, params, context, batch, key):
        real = regularizers.apart

        def detached(params, given):
            params, others = real(params, given)
            leaf = params["gaussians"]["opacities"]
            leaf = jnp.where(context.applied >= FAULT_AT, jax.lax.stop_gradient(leaf), leaf)
            return params | {"gaussians": params["gaussians"] | {"opacities": leaf}}, others

        with mock.patch.object(regularizers, "apart", detached):
            return super().loss(params, context, batch, key)


def short_run(task_class=SplatTask):
    """40 updates in blocks of 4, with a checkpoint at 20."""
    config = small_config(
        total=Duration(updates=40),
        updates_per_call=4,
        losses=REGULARIZED,
        evaluation=EvaluationConfig(every=Duration(updates=40), batch_size=1, at_start=False),
        checkpoint=CheckpointConfig(every=Duration(updates=20)),
        log=LogConfig(every=10, first=20),
    )
    return task_of(config, small_scene(), 256, task_class), config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def one_device(monkeypatch):
    monkeypatch.setattr("training.loop.make_mesh", lambda c: make_mesh(c, jax.devices()[:1]))


@pytest.mark.slow
def test_opacities_that_images_no_longer_reach_stop_the_run(folder, one_device):
    """The generic guard sees nothing: the regularizer still moves the opacities."""
    task, config = short_run(DetachedOpacities)
    with pytest.raises(GuardStop) as stop:
        fit(with_config(task, config), folder)
    assert stop.value.guard == "gradient-health" and stop.value.exit_code == 3
    last = FAULT_AT + GuardConfig().spike_patience
    assert "the data terms gave no usable gradient to opacities" in str(stop.value)
    assert f"up to step {last};" in str(stop.value)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    logged = [row for row in rows if "train/grad_norm_data/means" in row]
    assert [row["step"] for row in logged] == [*range(1, 21), 30, last]
    assert (
        logged[-1]["train/grad_norm_data/opacities"] == 0 < logged[-1]["train/grad_norm/opacities"]
    )
    for row in logged[:20]:
        assert 0.5 < row["train/reached_fraction"] <= 1 and row["train/visible"] > 100
        assert row["train/grad_norm_regularizer/opacities"] > 0


@pytest.mark.slow
def test_a_healthy_run_goes_on_from_the_checkpoint_to_its_end(folder, one_device):
    task, config = short_run()
    assert fit(with_config(task, config), folder) == "done"
    guards = json.loads((folder / "guards.json").read_text())
    (row,) = [row for row in guards if row["name"] == "gradient-health"]
    assert row["passed"] and row["checked"] > 20
