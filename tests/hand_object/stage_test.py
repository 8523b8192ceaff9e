"""Phases on the shared core: they act on what they should, in their windows, and are counted."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.config import PosesConfig, PrefitConfig
from hand_object.loss_config import BalanceConfig, ContactPhase, PhasesConfig, TemporalPhase
from hand_object.losses.auxiliary import contact_total, temporal_total
from hand_object.render.scene_placement import placements
from tests.hand_object.scenes import batches, make_program, small_task
from training.errors import ConfigError
from training.gradients import context_of
from training.optimizer import group_norms
from training.paths import named_leaves
from training.program import Program

pytestmark = pytest.mark.usefixtures("quick_compilation")
CALL = 5
PHASES = PhasesConfig(
    overlap="cumulative",
    least_updates=4,
    contact=ContactPhase(1.0, start=5, moves="poses+object_sdf"),
    temporal=TemporalPhase(0.01, start=10, velocity=0.05, acceleration=1.0),
)
BALANCE = BalanceConfig(every=5, ramp=2)


def staged_task(**changes):
    settings = {
        "phases": PHASES,
        "balance": BALANCE,
        "prefit": PrefitConfig(updates=0, points=64),
    }
    return small_task(**(settings | changes))


@functools.cache
def staged_program() -> Program:
    return make_program(staged_task())


@pytest.fixture(scope="module")
def run():
    """Fifteen updates with a refresh before each fifth: states before, and rows by update."""
    program = staged_program()
    states, rows = [], []
    with jax.set_mesh(program.layout.mesh):
        state = program.initial_state()
        for call in range(3):
            given = batches(program, range(CALL * call, CALL * (call + 1)))
            state, _ = program.refresh(state, jax.tree.map(lambda leaf: leaf[0], given))
            states.append(jax.device_get(state.model_state["balance"]))
            state, read = program.step(state, given)
            rows += read()
    return states, rows, state


def test_each_term_begins_with_its_window_and_is_counted(run):
    _, rows, _ = run
    for name, start in (("contact", 5), ("temporal", 10)):
        values = [row[f"loss/{name}"] for row in rows]
        assert values[:start] == [0.0] * start and min(values[start:]) > 0
        counts = [row[f"phase/{name}"] for row in rows]
        assert counts == [max(update - start + 1, 0) for update in range(15)]
        shares = [row[f"share/{name}"] for row in rows]
        assert shares[:start] == [0.0] * start and min(shares[start:]) > 0


def test_a_term_is_measured_before_its_window_opens(run):
    states, _, _ = run
    counts = [{n: int(own["measured"]) for n, own in s["terms"].items()} for s in states]
    assert counts == [
        {"contact": 1, "temporal": 0},
        {"contact": 2, "temporal": 1},
        {"contact": 3, "temporal": 2},
    ]


def test_each_term_has_its_share_of_the_gradient_on_what_it_moves(run):
    states, rows, _ = run
    for own in states[-1]["terms"].values():
        ratio = own["factor"] * own["own"] / own["base"]
        assert ratio == pytest.approx(0.08 / 0.84, rel=1e-4)
    for name in ("contact", "temporal"):
        assert 0.05 <= rows[-1][f"gradient_share/{name}"] <= 0.1


@pytest.mark.slow
def test_the_gradient_matrix_is_as_declared(run):
    """Each term in each group: above zero where it acts, and exactly zero elsewhere."""
    _, _, state = run
    program = staged_program()
    task = program.task
    with jax.set_mesh(program.layout.mesh):
        batch = jax.tree.map(lambda leaf: leaf[0], batches(program, range(1)))
        names = sorted(task.loss_terms)

        # One program for all terms: which one is asked for is an argument.
        def norms(state, batch, resident, chosen):
            def value(trained):
                params = program.optimizer.whole(trained, state.params)
                context = context_of(state, resident, program.plan.total)
                terms = task.loss(params, context, batch, context.update_key).terms
                return sum(chosen[row] * terms[name].mean() for row, name in enumerate(names))

            gradients = jax.grad(value)(program.optimizer.trained(state.params))
            return group_norms(gradients, program.optimizer.trained_labels)

        compiled = jax.jit(norms)
        matrix = {
            name: compiled(state, batch, program.resident, jnp.eye(len(names))[row])
            for row, name in enumerate(names)
        }
    acts = {
        "rgb": {"networks", "planes", "densities", "poses"},
        "mask": {"networks", "planes", "densities", "poses"},
        "sparse": {"networks", "planes", "densities", "poses"},
        "eikonal": {"networks", "planes", "poses"},
        "template": {"networks", "planes"},
        "poses": {"poses"},
        "contact": {"networks", "planes", "poses"},
        "temporal": {"poses"},
    }
    found = {
        term: {group for group, norm in own.items() if norm > 0} for term, own in matrix.items()
    }
    assert found == acts


def test_each_term_moves_what_the_config_says_and_nothing_else(run):
    params, program = run[2].params, staged_program()
    model, resident = program.config.model, program.resident
    frames = jnp.arange(4)

    def value(params, moves) -> jax.Array:
        placed = placements(params["poses"], resident["statics"], frames, resident["there"][frames])
        phase = ContactPhase(1.0, moves=moves)
        total = contact_total(params, model, placed, resident["grasps"], frames, phase, None)
        return total.mean()

    def smoothness(params) -> jax.Array:
        near, phase = program.task.stage.near, program.config.phases.temporal
        return temporal_total(params["poses"], resident["statics"], near, phase).mean()

    @jax.jit
    def gradients(params):
        moves = ("poses", "object_sdf", "poses+object_sdf")
        found = {name: jax.grad(value)(params, name) for name in moves}
        found["poses of temporal"] = jax.grad(smoothness)(params)
        return jax.tree.map(lambda leaf: jnp.abs(leaf).max(), found)

    parts = {"poses": "poses/", "object_sdf": "nodes/object/sdf/"}
    for moves, tree in gradients(params).items():
        leaves = named_leaves(tree)
        for part, prefix in parts.items():
            own = [float(leaf) for path, leaf in leaves.items() if path.startswith(prefix)]
            assert (max(own) > 0) == (part in moves), (moves, part)
        for path, leaf in leaves.items():
            assert leaf == 0 or path.startswith(tuple(parts.values())), path


def test_poses_that_are_not_refined_cannot_be_smoothed():
    task = staged_task(poses=PosesConfig(refine_hands=False, refine_object=False))
    with pytest.raises(ConfigError, match="temporal is on, but nothing that it moves"):
        jax.eval_shape(task.init, jax.random.key(0))


def test_a_stage_in_epochs_is_measured_against_the_frames_that_are_trained_on():
    from training.config import Duration

    # Seven of nine frames, two an update: 30 epochs are 105 updates.
    task = staged_task(
        total=Duration(epochs=30), phases=PhasesConfig(contact=ContactPhase(1.0)), balance=BALANCE
    )
    with pytest.raises(ConfigError, match=r"a stage of 105 updates: contact .* has 105 of them"):
        jax.eval_shape(task.init, jax.random.key(0))


def test_contact_without_a_grasp_is_refused():
    task = staged_task()
    nowhere = {side: own._replace(holding=own.holding & False) for side, own in task.grasps.items()}
    task.__dict__["grasps"] = nowhere
    with pytest.raises(ConfigError, match="in no frame does a hand hold the object"):
        jax.eval_shape(task.init, jax.random.key(0))


def test_held_out_frames_are_not_smoothed():
    task = staged_task()
    for near in task.stage.near.values():
        assert not np.isin(near.pairs, np.flatnonzero(task.held_out)).any()


def test_a_stage_without_phases_is_as_before():
    task = small_task()
    assert not task.stage.phases and task.tables() == {}
    assert set(task.loss_terms) == {"rgb", "mask", "eikonal", "sparse", "template", "poses"}
    assert task.refresh_cadence is not None and not task.refresh_cadence.due(0)
