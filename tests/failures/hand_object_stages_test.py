"""Stages that trained and did nothing: each original fault, injected, is refused or stopped."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import configs.hand_object
from hand_object import guards
from hand_object.fields.background import inverted_sphere_points
from hand_object.guards import PATIENCE, IdlePhase, Leaps
from hand_object.hand_off import check_facts
from hand_object.loss_config import BalanceConfig, ContactPhase, PhasesConfig, TemporalPhase
from hand_object.phases import check_phases
from hand_object.stage import ROUNDING, Stage
from tests.hand_object.scenes import batches, small_config, small_task
from tests.hand_object.stage_test import staged_program
from training.config import Duration
from training.errors import CheckpointError, ConfigError
from training.evaluation import evaluate_state
from training.guards.watch import ConstantTerm, ShareCap, ZeroGradient

RECIPES = Path(configs.hand_object.__file__).parent


def stage(mode: str = "gradient_share") -> Stage:
    phases = PhasesConfig(
        overlap="cumulative",
        contact=ContactPhase(1.0),
        temporal=TemporalPhase(1.0, start=1000),
    )
    config = small_config(
        total=Duration(updates=4000), phases=phases, balance=BalanceConfig(mode=mode)
    )
    return Stage(config, 4000, {})


def rows(name: str, count: int, **values):
    """Metrics of so many updates of a term."""
    for step in range(1, count + 1):
        yield step, {f"{key}/{name}": value for key, value in values.items()} | {"skipped": 0.0}


def first(watch, metrics):
    findings = (watch.check(step, row) for step, row in metrics)
    return next((found for found in findings if found is not None), None)


def test_11_a_camera_at_the_center_of_the_sphere_gives_finite_points():
    """19 million infinities: an axis of rotation was 0 / 0 for every ray through the center."""
    random = np.random.default_rng(0)
    directions = random.normal(size=(64, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    rho = jnp.linspace(1 / 6, 0.0, 32)[None] * jnp.ones((64, 1))

    def points(origins):
        return inverted_sphere_points(origins, jnp.asarray(directions, jnp.float32), rho)

    center = jnp.zeros((64, 3))
    assert bool(jnp.isfinite(points(center)).all())
    slope = jax.grad(lambda origins: points(origins).sum())(center)
    assert bool(jnp.isfinite(slope).all())


def test_14_a_term_that_is_caught_and_replaced_by_zero_is_stopped():
    """SDS raised in every update, and the error was turned into a loss of zero."""
    watch = IdlePhase({"sds": (0, 30)})
    found = first(watch, rows("sds", 40, loss=0.0, measured=0.0, phase=0.0))
    assert found is not None and not found.passed
    assert found.sentence.startswith(
        "the phase sds [0, 30) ended at step 30 without having acted in one update"
    )


def test_14_a_term_that_is_detached_is_stopped_long_before_its_window_ends():
    """Contact and smoothness changed the printed loss and no parameter."""
    watch = IdlePhase({"temporal": (0, 10_000)})
    found = first(watch, rows("temporal", 200, loss=0.1, measured=0.0, phase=0.0))
    assert found is not None and not found.passed
    assert found.sentence == (
        f"the term temporal had a value in {PATIENCE} updates up to step {PATIENCE}, but no "
        "gradient on what it moves: it is detached"
    )


def test_a_term_that_acts_is_left_alone():
    watch = IdlePhase({"temporal": (0, 100)})
    assert first(watch, rows("temporal", 120, loss=0.1, measured=1.0, phase=5.0)) is None


def test_14_a_required_term_that_stays_the_same_is_stopped():
    """Epochs of a loss of 0.000000 were passed over as a fault of the collection."""
    terms = stage().loss_terms()
    watch = ConstantTerm(10, terms)
    metrics = [(step, {"loss/temporal": 0.2, "skipped": 0.0}) for step in range(1001, 1012)]
    found = first(watch, metrics)
    assert found is not None and "'temporal' was exactly 0.2" in found.sentence


def test_14_poses_that_are_detached_before_the_forward_pass_are_stopped():
    watch = ZeroGradient(20, {})
    metrics = [(step, {"grad_norm/poses": 0.0, "skipped": 0.0}) for step in range(1, 30)]
    found = first(watch, metrics)
    assert found is not None and "parameter group 'poses' was exactly zero" in found.sentence


def test_12_a_weight_that_takes_over_is_stopped_where_its_cap_does_not_hold():
    """w_sds = 5000, w_temporal = 1.0: what keeps to the cap is tested with the balance."""
    terms = stage("fixed").loss_terms()
    assert terms["temporal"].share_cap == BalanceConfig().most + ROUNDING
    watch = ShareCap(terms, 5)
    metrics = [(step, {"share/temporal": 0.9}) for step in range(1, 10)]
    found = first(watch, metrics)
    assert found is not None and "took 90% of the loss" in found.sentence


def test_12_a_loss_that_leaps_again_and_again_is_stopped():
    watch = Leaps(20)
    metrics = [(step, {"leaps": float(step)}) for step in range(1, 40)]
    found = first(watch, metrics)
    assert found is not None and "the loss leapt in 21 of the last 22 updates" in found.sentence
    steady = [(step, {"leaps": 3.0}) for step in range(1, 600)]
    assert first(Leaps(20), steady) is None


def test_13_windows_beyond_the_run_are_refused_with_the_arithmetic(podvision, tmp_path):
    recipe = f"{RECIPES / 'stage3_contact_temporal.py'}"
    result = podvision(
        "train",
        "--config",
        recipe,
        "--workdir",
        tmp_path / "run",
        f"--config.total.updates={30 * 55}",
        "--config.phases.sds.coefficient=0",
    )
    assert result.code == 2 and not (tmp_path / "run").exists()
    assert re.search(r"contact \[2000, end\) has 0 of them, temporal \[5000, end\)", result.err)


def test_13_phases_that_overlap_without_a_word_are_refused():
    phases = PhasesConfig(contact=ContactPhase(1.0), temporal=TemporalPhase(1.0))
    with pytest.raises(ConfigError, match="does not say how they overlap"):
        check_phases(phases, BalanceConfig(), 8340)


def test_15_a_hand_off_of_other_widths_is_refused_before_anything_is_compiled():
    task = small_task()
    saved = task.metadata()
    saved["spec"] = saved["spec"] | {"model.color.frame_code": 256}
    with pytest.raises(CheckpointError, match=r"frame_code 256 -> 4"):
        task.saved_form({}, (), saved)


def test_15_a_hand_off_of_another_sequence_is_refused():
    saved = small_task().metadata()
    saved["sequence"] = {"name": "bottle_2", "content": "0123"}
    with pytest.raises(CheckpointError, match=r"another sequence \(bottle_2, content 0123\)"):
        check_facts(saved, small_task().metadata())


def test_the_guards_of_stages_are_known_by_name():
    assert {watch.name for watch in guards.of_updates({"sds": (0, 1)}, BalanceConfig())} <= set(
        guards.NAMES
    )
    assert guards.of_updates({}, BalanceConfig()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_16_memory_is_constant_over_300_updates_of_contact_and_smoothness():
    """Memory grew by 12 % an epoch: a mesh was extracted in every update, and kept."""
    program = staged_program()
    with jax.set_mesh(program.layout.mesh):
        given = [batches(program, range(5 * call, 5 * (call + 1))) for call in range(2)]
        batch = jax.tree.map(lambda leaf: leaf[0], given[0])
        state, held = program.initial_state(), []
        for call in range(60):
            state, _ = program.refresh(state, batch)
            state, read = program.step(state, given[call % 2])
            read()
            if call % 20 == 19:  # meshes are made by evaluations, on their schedule
                evaluate_state(program, state)
            sizes = [array.nbytes for array in jax.live_arrays()]
            held.append((len(sizes), sum(sizes)))
    assert int(state.model_state["balance"]["terms"]["temporal"]["active"]) > 250
    # Right after an evaluation its copy of the parameters is still there, until the next update.
    later, evaluated = held[20:], held[39::20]
    assert len(set(evaluated)) == 1, evaluated
    assert len(set(later) - set(evaluated)) == 1 and len(set(later)) == 2, sorted(set(later))
