"""The splat task on the shared core: memory, schedules, suppression, growth, resume."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from splats.checks import start as start_checks
from splats.config import (
    DensifyConfig,
    MetricsConfig,
    ModelConfig,
    RenderConfig,
    scaled_for_batch,
    splat_optimizer,
)
from splats.gaussians import refinement
from splats.losses import regularizers as regularizers
from splats.task import SplatTask
from tests.splats.scenes import (
    batches,
    losses,
    make_program,
    one_batch,
    shared_program,
    small_config,
    small_scene,
    small_task,
)
from training.config import GroupConfig
from training.errors import CheckpointError, ConfigError
from training.evaluation import evaluate_state

MCMC = DensifyConfig("mcmc", refine_start_iter=2, refine_stop_iter=50, refine_every=5)
pytestmark = pytest.mark.usefixtures("quick_compilation")


def host(state):
    """A copy of a state that outlives donation, with the key as numbers."""
    return jax.device_get(replace(state, key=jax.random.key_data(state.key)))


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_state_takes_708_bytes_per_gaussian_within_five_percent():
    task = small_task(model=ModelConfig(initial_capacity=4096, cap_max=4096), capacity=4096)
    state = make_program(task).abstract_state
    leaves = jax.tree.leaves((state.params, state.opt_state, state.model_state))
    total = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    assert total / 4096 == pytest.approx(708, rel=0.05)


def test_training_raises_the_psnr_of_held_out_views():
    program = shared_program("default")
    with jax.set_mesh(program.layout.mesh):
        state = program.initial_state()
        before = evaluate_state(program, state)
        for step in range(30):
            state, _ = program.step(state, batches(program, range(step, step + 1)))
        after = evaluate_state(program, state)
    assert after.metrics["psnr"] > before.metrics["psnr"] + 2
    assert after.metrics["views"] == len(small_scene().test) == 2
    assert after.metrics["gap_psnr"] == pytest.approx(
        after.metrics["train_psnr"] - after.metrics["psnr"]
    )
    check_picture_agrees_with_score(program.task, after)


def check_picture_agrees_with_score(task, evaluation):
    """The PSNR recomputed from the 8-bit pictures is the reported one."""
    scores = []
    whole = {n: image for n, image in evaluation.images.items() if n.startswith("view_")}
    for picture in whole.values():
        width = picture.shape[1] // 3
        true, rendered = picture[:, :width] / 255.0, picture[:, width : 2 * width] / 255.0
        scores.append(-10 * np.log10(np.mean((true - rendered) ** 2)))
    assert len(scores) == len(task.scene.test)
    assert np.mean(scores) == pytest.approx(evaluation.metrics["psnr"], abs=0.05)


@pytest.mark.parametrize("strategy", ["default", "mcmc"])
def test_free_slots_never_change_a_bit(strategy):
    program = shared_program(strategy)
    with jax.set_mesh(program.layout.mesh):
        state = program.initial_state()
        before = host(state)
        for step in range(3):
            state, _ = program.step(state, batches(program, range(step, step + 1)))
        after = host(state)
    free = ~before.model_state.alive
    assert free.sum() == 512 - 250
    for old, new in ((before.params, after.params), (before.opt_state.mu, after.opt_state.mu)):
        jax.tree.map(lambda o, n: np.testing.assert_array_equal(o[free], n[free]), old, new)


def taming_adam(parameter, m, v, gradient, rate):
    """SelectiveAdam of Taming 3DGS for the rows in view: no bias correction, no global count."""
    m = 0.9 * m + 0.1 * gradient
    v = 0.999 * v + 0.001 * gradient**2
    return parameter - rate * m / (np.sqrt(v) + 1e-15), m, v


def test_selective_updates_are_tamings_and_leave_rows_out_of_view_alone():
    task = small_task(selective_adam=True, losses=losses(opacity=0.01))
    program = make_program(task)
    coefficients = {name: term.coefficient for name, term in task.loss_terms.items()}
    objective = functools.partial(start_checks._objective, task)
    gradients_of = jax.jit(jax.grad(objective, has_aux=True))
    with jax.set_mesh(program.layout.mesh):
        state = program.initial_state()
        gaussians = state.params["gaussians"]
        behind = jnp.arange(256) < 40  # moved out of every view
        means = jnp.where(behind[:, None], 1e3, gaussians["means"])
        scales = gaussians["scales"] + jnp.array([[0.5, 0.0, -0.5]])  # rotations matter
        state = replace(state, params={"gaussians": gaussians | {"means": means, "scales": scales}})
        start = host(state)
        expected = {n: (x, 0.0 * x, 0.0 * x) for n, x in start.params["gaussians"].items()}
        seen = []
        for step in range(3):
            batch = batches(program, range(step, step + 1))
            one = jax.tree.map(lambda leaf: leaf[0], batch)
            now = state.params["gaussians"], coefficients, state, one, program.resident
            gradients = jax.device_get(gradients_of(*now)[0])
            state, read = program.step(state, batch)
            after = host(state)
            rows = after.model_state.visible
            seen.append(rows)
            for name, old in expected.items():
                rate = read()[0][f"learning_rate/{name}"]
                new = taming_adam(*old, gradients[name], rate)
                mask = rows.reshape(-1, *[1] * (old[0].ndim - 1))
                expected[name] = tuple(np.where(mask, n, o) for n, o in zip(new, old))
    assert not seen[0][:40].any() and (seen[0] & ~seen[1]).any() and (seen[1] & ~seen[0]).any()
    for name, (parameter, m, v) in expected.items():
        found = after.params["gaussians"][name]
        never = ~np.any(seen, axis=0)
        np.testing.assert_array_equal(found[never], start.params["gaussians"][name][never])
        # Of a gradient that is all rounding, m / sqrt(v) is rounding too.
        steps = np.abs(parameter - start.params["gaussians"][name]).max()
        close = np.isclose(found, parameter, rtol=0, atol=1e-2 * steps)
        assert close.mean() > 0.99 and (steps > 0 or name == "shN"), name
        np.testing.assert_allclose(
            after.opt_state.mu["gaussians"][name], m, rtol=1e-3, atol=1e-4 * np.abs(m).max()
        )
        np.testing.assert_allclose(
            after.opt_state.nu["gaussians"][name], v, rtol=1e-3, atol=1e-4 * np.abs(v).max()
        )


def test_too_few_pairs_suppress_the_update_and_growing_lets_it_pass():
    task = small_task(render=RenderConfig(pair_capacity=512))
    program = make_program(task)
    with jax.set_mesh(program.layout.mesh):
        state = program.initial_state()
        before = host(state)
        state, read = program.step(state, batches(program, range(1)))
        assert read()[0]["suppressed/overflow"] == read()[0]["replay"] == 1.0
        same(before, host(state))
        while read()[0]["replay"]:
            program, state = program.resized(state, "overflow")
            state, read = program.step(state, batches(program, range(1)))
        assert program.task.sizes.pair_capacity >= read()[0]["pairs"]
        assert int(state.step) == 1


@pytest.mark.parametrize("strategy", ["default", "mcmc"])
def test_more_slots_do_not_change_what_is_learned(strategy):
    """A run that goes on with more slots has the same Gaussians in the first ones."""
    program = shared_program(strategy)
    with jax.set_mesh(program.layout.mesh):
        state, _ = program.step(program.initial_state(), batches(program, range(1)))
        larger, padded = program.task.resize(jax.tree.map(jnp.copy, state), "full")
        results = []
        for p, s in ((program, state), (make_program(larger), padded)):
            for step in (1, 2):
                s, read = p.step(s, batches(p, range(step, step + 1)))
            results.append((read()[-1]["loss"], host(s)))
    (loss, small), (padded_loss, big) = results
    assert larger.sizes.capacity == 1024
    assert padded_loss == pytest.approx(loss, rel=1e-5)
    scale = np.abs(small.params["gaussians"]["means"]).max()
    np.testing.assert_allclose(
        big.params["gaussians"]["means"][:512] / scale,
        small.params["gaussians"]["means"] / scale,
        atol=1e-4,
    )
    assert not big.model_state.alive[512:].any()


def test_a_nearly_full_ledger_row_asks_for_slots_until_the_cap():
    row = {"densify/alive": 200.0, "densify/capacity": 256.0, "densify/dropped": 0.0}
    assert small_task().resize_reason(row) == "full"
    assert small_task().resize_reason(row | {"densify/alive": 100.0}) is None
    assert small_task().resize_reason(row | {"densify/alive": 9.0, "densify/dropped": 1.0})
    full = row | {"densify/capacity": 1024.0, "densify/alive": 1024.0}
    assert small_task().resize_reason(full) is None


@pytest.mark.parametrize("applied", [10, 11])
def test_default_refinement_resets_opacities_when_the_boundary_was_crossed(applied):
    program = shared_program("default")
    with jax.set_mesh(program.layout.mesh):
        state = replace(program.initial_state(), step=jnp.int32(applied))
        after, row = program.refresh(state, one_batch(program))
    opacity = jax.nn.sigmoid(after.params["gaussians"]["opacities"])
    assert np.asarray(opacity)[np.asarray(after.model_state.alive)].max() <= 0.0101
    assert row["densify/opacity_reset"] == 1.0


def test_mcmc_refinement_grows_by_five_percent_and_noise_moves_means():
    program = shared_program("mcmc")
    with jax.set_mesh(program.layout.mesh):
        state, row = program.refresh(program.initial_state(), one_batch(program))
        assert row["densify/added"] == 12 and row["densify/alive"] == 262
        rates = {"means": jnp.float32(1e-4)}
        params, _ = program.task.after_update(
            state.params, state.model_state, state.applied, rates, state.key
        )
    moved = params["gaussians"]["means"] != state.params["gaussians"]["means"]
    assert bool(jnp.any(moved)) and not bool(jnp.any(moved & ~state.model_state.alive[:, None]))


def test_harmonics_are_raised_one_degree_at_a_time_without_new_compilation():
    task = small_task()
    assert [int(task.active_degree(jnp.int32(a))) for a in (0, 19, 20, 40, 900)] == [0, 0, 1, 1, 1]


def test_regularizers_are_means_over_visible_gaussians_only():
    task = small_task(losses=losses(opacity=0.5, scale=0.25))
    params, _ = task.init(jax.random.key(1))
    visible = jnp.arange(256) < 7
    terms = regularizers.terms(task.config.losses, params, visible)
    opacity = 1 / (1 + np.exp(-np.asarray(params["gaussians"]["opacities"][:7])))
    assert float(terms["opacity"].mean()) == pytest.approx(opacity.mean(), rel=1e-5)
    scale = np.exp(np.asarray(params["gaussians"]["scales"][:7])).mean()
    assert float(terms["scale"].mean()) == pytest.approx(scale, rel=1e-5)


def test_depth_is_weighted_by_the_scene_scale_as_disparities_have_a_unit():
    task = small_task(losses=losses(depth=1e-2))
    term = task.loss_terms["depth"]
    assert term.coefficient == pytest.approx(1e-2 * task.scene.scene_scale) != 1e-2
    far = replace(task.config, scene=replace(task.config.scene, scale_factor=3.0))
    larger = replace(task, config=far).loss_terms["depth"]
    assert larger.coefficient == pytest.approx(3 * term.coefficient)


def test_bilateral_grids_and_poses_are_groups_of_their_own_and_learn():
    model = replace(small_config().model, bilateral_grid=True, pose_correction=True)
    task = small_task(
        model=model, optimizer=splat_optimizer(bilateral=2e-3, poses=1e-5), batch_size=2
    )
    program = make_program(task)
    with jax.set_mesh(program.layout.mesh):
        state, read = program.step(program.initial_state(), batches(program, range(1)))
        metrics = read()[-1]
    assert metrics["grad_norm/bilateral"] > 0 and metrics["grad_norm/poses"] > 0
    assert metrics["loss/tv"] >= 0
    assert state.params["bilateral"].shape[0] == len(small_scene().train)


def test_batch_scaling_follows_the_square_root_rule_up_to_its_cap():
    base = replace(splat_optimizer(), groups=(*splat_optimizer().groups, GroupConfig("other")))
    four = scaled_for_batch(base, 4)
    assert four.groups[1].learning_rate == pytest.approx(2 * 5e-3)
    assert (four.b1, four.eps) == pytest.approx((0.6, 5e-16))
    assert four.b2 == pytest.approx(0.996)
    assert four.groups[-1] == GroupConfig("other") and four.learning_rate == pytest.approx(2e-3)
    many = scaled_for_batch(base, 64)
    assert many.b1 == pytest.approx(1 - 8 * 0.1) and many.b1 > 0
    with pytest.raises(ConfigError, match=r"optimizer\.b1 = 0\.8 .* raise it to 0\.875 or more"):
        scaled_for_batch(replace(base, b1=0.8), 64)


@pytest.mark.parametrize(("scaling", "factor"), [("none", 1.0), ("sqrt", 4.0)])
def test_the_optimizer_of_a_run_is_scaled_for_its_batch_where_the_config_says_so(scaling, factor):
    program = make_program(small_task(batch_size=4, batch_scaling=scaling))
    rates, scale = program.optimizer.learning_rates(jnp.int32(0)), program.task.scene_scale
    assert float(rates["means"]) == pytest.approx(factor**0.5 * 1.6e-4 * scale)
    assert float(rates["opacities"]) == pytest.approx(factor**0.5 * 5e-2)
    # The moments of a constant gradient after one update are 1 - beta, here B (1 - beta).
    params = {"gaussians": {name: jnp.ones(3) for name in program.optimizer.labels["gaussians"]}}
    _, moments, _ = program.optimizer.update(
        params, program.optimizer.init(params), params, jnp.int32(0)
    )
    assert float(moments.mu["gaussians"]["means"][0]) == pytest.approx(factor * 0.1)
    assert float(moments.nu["gaussians"]["means"][0]) == pytest.approx(factor * 0.001, rel=1e-4)


def test_a_checkpoint_that_trained_on_held_out_views_is_refused():
    task = small_task()
    metadata = task.metadata()
    split = metadata["scene"]["split"]
    first, *others = split["test"]
    leaking = {"train": [*split["train"], first], "test": others, "mode": "x"}
    with pytest.raises(CheckpointError, match="held-out"):
        task.with_metadata(metadata | {"scene": metadata["scene"] | {"split": leaking}}).sources()


def test_the_room_of_a_checkpoint_is_taken_over():
    """For pairs too, although another number is configured: a run has found what it needs."""
    metadata = small_task().metadata()
    for pairs in (64, 2 * small_config().render.pair_capacity):
        saved = metadata["sizes"] | {"capacity": 512, "pair_capacity": pairs}
        sizes = small_task().with_metadata(metadata | {"sizes": saved}).sizes
        assert sizes.capacity == 512
        assert sizes.pair_capacity == pairs


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"densify": DensifyConfig("default", reset_every=2950)}, "densify.reset_every"),
        ({"densify": DensifyConfig("default", prune_opa=0.0019)}, "densify.prune_opa"),
        ({"metrics": MetricsConfig(lpips="alex")}, "metrics.lpips_weights"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(changes, key):
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        small_config(**changes)


def test_more_points_than_capacity_is_refused():
    model = ModelConfig(initial_capacity=64, cap_max=64)
    with pytest.raises(ConfigError, match=r"model\.cap_max"):
        small_task(64, model=model).init(jax.random.key(0))


def test_padding_twice_equals_padding_once(new_key):
    state = make_program(small_task()).initial_state()
    once = refinement.resized(state, 1024)
    twice = refinement.resized(refinement.resized(state, 512), 1024)
    same(host(once), host(twice))
    assert isinstance(small_task(), SplatTask)
