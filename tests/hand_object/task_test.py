"""The hand-object task on the shared core: it learns, holds out, refreshes and keeps its memory."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.config import PosesConfig, PrefitConfig, RaysConfig, preset
from hand_object.fields.prefit import prefit_error
from hand_object.fields.sdf_network import init_sdf
from hand_object.render.nodes import node_cache
from tests.hand_object.scenes import (
    batches,
    make_program,
    shared_program,
    small_config,
    small_opened,
    small_task,
    task_of,
)
from training.evaluation import evaluate_state
from training.paths import named_leaves

pytestmark = pytest.mark.usefixtures("quick_compilation")
CALL = 5  # updates of one call; every call of this module has the same shapes


def train(program, state, calls, first=0):
    rows = []
    for call in range(first, first + calls):
        state, read = program.step(state, batches(program, range(CALL * call, CALL * (call + 1))))
        rows += read()
    return state, rows


@pytest.mark.slow
def test_training_raises_psnr_and_overlap_of_held_out_frames():
    program = shared_program()
    with jax.set_mesh(program.layout.mesh):
        state = program.initial_state()
        before = evaluate_state(program, state).metrics
        for round_ in range(10):
            state, rows = train(program, state, 2, 2 * round_)
            batch = jax.tree.map(lambda leaf: leaf[0], batches(program, range(1)))
            state, _ = program.refresh(state, batch)
        after = evaluate_state(program, state).metrics
    assert all(np.isfinite(row["loss"]) for row in rows)
    # A fifth of the squared error at least; 24 x 32 pixels say little more in a few updates.
    assert after["foreground_psnr"] > before["foreground_psnr"] + 1
    assert after["mask_iou"] > before["mask_iou"]
    assert {"chamfer", "f10_icp", "mpjpe", "contact_accuracy"} <= after.keys()


@pytest.mark.slow
def test_held_out_poses_are_never_touched_and_the_others_are():
    program = shared_program()
    task = program.task
    with jax.set_mesh(program.layout.mesh):
        state, _ = train(program, program.initial_state(), 4)
        poses = jax.device_get(state.params["poses"])
    for name in ("object", "right"):
        change = np.abs(poses[name]["translation"] - task.start_poses[name]["translation"])
        assert change[task.held_out].max() == 0
        assert (change[~task.held_out].max(axis=1) > 0).all()
    assert poses["object"]["log_scale"] == task.start_poses["object"]["log_scale"]


@pytest.mark.slow
def test_memory_is_constant_over_300_updates():
    program = shared_program()
    with jax.set_mesh(program.layout.mesh):
        given = [batches(program, range(CALL * call, CALL * (call + 1))) for call in range(2)]
        batch = jax.tree.map(lambda leaf: leaf[0], given[0])
        state, held = program.initial_state(), []
        for call in range(60):
            state, read = program.step(state, given[call % 2])
            read()
            state, _ = program.refresh(state, batch)
            # No name for the list: it would keep alive what it lists.
            sizes = [array.nbytes for array in jax.live_arrays()]
            held.append((len(sizes), sum(sizes)))
    assert len(set(held[2:])) == 1, sorted(set(held))


@pytest.mark.slow
def test_a_refresh_makes_the_caches_those_of_the_fields():
    program = shared_program()
    with jax.set_mesh(program.layout.mesh):
        state, _ = train(program, program.initial_state(), 1)
        old = jax.device_get(state.model_state["caches"])
        batch = jax.tree.map(lambda leaf: leaf[0], batches(program, range(1)))
        state, ledger = program.refresh(state, batch)
        new = jax.device_get(state.model_state["caches"])
        for name, node in state.params["nodes"].items():
            wanted = node_cache(node, program.config.model, None)
            np.testing.assert_allclose(new[name], wanted, atol=1e-4)
            assert np.abs(new[name] - old[name]).max() > 1e-3
    assert ledger["least_distance/object"] < 0


@pytest.mark.slow
def test_every_term_reaches_the_groups_that_it_is_for():
    program = shared_program()
    with jax.set_mesh(program.layout.mesh):
        state, _ = train(program, program.initial_state(), 1)
        batch = jax.tree.map(lambda leaf: leaf[0], batches(program, range(1)))
        norms = program.term_gradients(state, batch)
    for term in ("rgb", "mask"):
        assert all(norms[term][group] > 0 for group in ("networks", "planes", "densities", "poses"))
    # Points along rays move with the poses; points around the template do not.
    assert norms["eikonal"]["planes"] > 0
    assert norms["template"]["planes"] > 0 and norms["template"]["poses"] == 0
    assert norms["poses"]["poses"] > 0 and norms["poses"]["planes"] == 0


def test_a_hand_knows_its_template_before_the_first_update():
    program = shared_program()
    task, model = program.task, program.config.model
    with jax.set_mesh(program.layout.mesh):
        taught = program.initial_state().params["nodes"]["right"]["sdf"]
        ball = init_sdf(jax.random.key(0), model)
        errors = [prefit_error(sdf, model, task.templates["right"]) for sdf in (taught, ball)]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.slow
def test_a_hand_without_poses_in_some_frames_is_left_out_there():
    opened = small_opened()
    hand = opened.sequence.hands["right"]
    valid = np.arange(len(hand.valid)) % 2 == 0
    absent = replace(opened.sequence, hands={"right": replace(hand, valid=valid)})
    task = task_of(small_config(), replace(opened, sequence=absent))
    program = make_program(task)
    with jax.set_mesh(program.layout.mesh):
        state, rows = train(program, program.initial_state(), 2)
        poses = jax.device_get(state.params["poses"]["right"]["translation"])
    assert all(np.isfinite(row["loss"]) and row["skipped"] == 0 for row in rows)
    change = np.abs(poses - hand.translation).max(axis=1)
    assert (change[~valid] == 0).all() and change[valid].max() > 0


def test_poses_that_are_not_refined_are_frozen():
    task = small_task(poses=PosesConfig(refine_hands=False, refine_object=False))
    params, _ = jax.eval_shape(task.init, jax.random.key(0))
    labels = named_leaves(task.optimizer_groups(params))
    assert {label for path, label in labels.items() if path.startswith("poses")} == {"frozen"}
    assert not [group for group in task.config.optimizer.groups if group.name == "poses"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["seed", "hold"])
def test_the_wide_networks_take_a_step(name):
    model = preset(name)
    sampler = replace(model.sampler, rounds=1, probes=32, samples=16, extra=4)
    task = small_task(
        model=replace(model, sampler=sampler),
        batch_size=1,
        rays=RaysConfig(per_frame=16),
        prefit=PrefitConfig(updates=0, points=256),
    )
    program = make_program(task)
    with jax.set_mesh(program.layout.mesh):
        state = program.initial_state()
        before = jax.device_get(state.params["nodes"])
        state, read = program.step(state, batches(program, range(1)))
        (row,) = read()
        after = jax.device_get(state.params["nodes"])
    assert np.isfinite(row["loss"]) and row["skipped"] == 0
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before, after)
    assert all(named_leaves(moved["object"]["sdf"]).values())
