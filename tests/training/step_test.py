"""One update: accumulation, suppression, clipping, EMA, replay, several updates per call."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.training.toy import ToyTask, toy_program
from training.capabilities import Probing, Resizable
from training.config import EmaConfig, MeshConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from training.loss import LossOutput, LossTerm, Total
from training.mesh import Layout, make_mesh
from training.program import Program

BASE = TrainConfig(
    "toy",
    batch_size=32,
    optimizer=OptimizerConfig(learning_rate=1e-2),
    ema=EmaConfig("cosine", 0.9, 0.99),
)


def make_program(task=None, mesh=None, total=100, **changes) -> Program:
    config = dataclasses.replace(BASE, mesh=mesh or MeshConfig(data=1, model=-1), **changes)
    return toy_program(task, config, Layout(make_mesh(config.mesh)), total)


def host_batches(task, count, size=32, first=0):
    source = task.sources().train
    batches = []
    for b in range(count):
        rows = [source[(first + b * size + i) % len(source)] for i in range(size)]
        batch = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
        batch["position"] = np.arange(first + b * size, first + (b + 1) * size, dtype=np.uint32)
        batches.append(batch)
    return batches


def run(program, batches, per_call=1, state=None):
    layout, size = program.layout, program.config.batch_size
    rows = []
    with jax.set_mesh(layout.mesh):
        state = program.initial_state() if state is None else state
        for start in range(0, len(batches), per_call):
            part = layout.put_batches(batches[start : start + per_call], size)
            state, read = program.step(state, part)
            rows += read()
    return state, rows


def assert_trees_equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_gives_the_update_of_the_whole_batch(parts):
    batches = host_batches(ToyTask(), 3)
    whole, rows_whole = run(make_program(accumulation=1), batches)
    split, rows_split = run(make_program(accumulation=parts), batches)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(split.params)):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    for a, b in zip(rows_whole, rows_split):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-6)
        np.testing.assert_allclose(a["grad_norm"], b["grad_norm"], rtol=1e-6)


def test_the_update_is_that_of_optax_adamw_with_clipping():
    task, batches = ToyTask(), host_batches(ToyTask(), 4)
    program = make_program(task)
    with jax.set_mesh(program.layout.mesh):
        start = jax.tree.map(jnp.copy, program.initial_state().params)
    state, rows = run(program, batches)

    schedule = program.optimizer.schedules["all"]
    reference = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.scale_by_adam(),
        optax.add_decayed_weights(0.05, {"dense": {"kernel": True, "bias": False}}),
        optax.scale_by_learning_rate(schedule),
    )

    def loss(params, batch):
        error = jnp.sum((task.predict(params, batch["x"]) - batch["y"]) ** 2, axis=-1)
        return jnp.sum(error * batch["w"]) / jnp.sum(batch["w"])

    params, opt_state = start, reference.init(start)
    for batch, row in zip(batches, rows):
        value, gradients = jax.value_and_grad(loss)(params, batch)
        np.testing.assert_allclose(row["loss"], value, rtol=1e-5)
        np.testing.assert_allclose(row["grad_norm"], optax.global_norm(gradients), rtol=1e-5)
        updates, opt_state = reference.update(gradients, opt_state, params)
        params = optax.apply_updates(params, updates)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(params)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_nonfinite_batch_leaves_the_state_bit_identical(bad):
    batches = host_batches(ToyTask(), 3)
    batches[1]["x"][5, 3] = bad
    program = make_program()
    before, _ = run(program, batches[:1])
    before = jax.tree.map(jnp.copy, before)
    after, rows = run(program, batches[1:2], state=jax.tree.map(jnp.copy, before))
    for name in ("params", "opt_state", "ema", "model_state"):
        assert_trees_equal(getattr(before, name), getattr(after, name))
    assert (int(after.step), int(after.skipped), int(after.applied)) == (2, 1, 1)
    assert rows[0]["suppressed/nonfinite"] == 1.0
    later, rows = run(program, batches[2:], state=after)
    assert rows[0]["suppressed/nonfinite"] == 0.0 and np.isfinite(rows[0]["loss"])
    assert int(later.applied) == 2


def test_learning_rate_and_ema_decay_of_a_step_count_applied_updates_only():
    batches = host_batches(ToyTask(), 4)
    batches[1]["x"][0, 0] = np.nan
    long = {"optimizer": OptimizerConfig(schedule=ScheduleConfig(warmup_fraction=0.5))}
    _, rows = run(make_program(**long), batches)
    for name in ("learning_rate", "ema_decay"):
        values = [row[name] for row in rows]
        assert values[1] == values[2] and 0 < values[0] < values[1] < values[3], name


def test_gradient_norm_is_measured_before_clipping():
    batches = host_batches(ToyTask(), 1)
    loose, rows_loose = run(make_program(optimizer=OptimizerConfig(clip_norm=None)), batches)
    tight, rows_tight = run(make_program(optimizer=OptimizerConfig(clip_norm=1e-3)), batches)
    for name in ("grad_norm", "grad_norm/all"):
        assert rows_loose[0][name] == rows_tight[0][name] > 1
    assert rows_loose[0]["clip_scale"] == 1.0 and rows_tight[0]["clip_scale"] < 1e-3


def test_the_average_follows_its_closed_form():
    program = make_program(ema=EmaConfig("constant", 0.9))
    batches = host_batches(ToyTask(), 3)
    with jax.set_mesh(program.layout.mesh):
        expected = jax.tree.map(np.asarray, program.initial_state().params)
    state = None
    for batch in batches:
        state, _ = run(program, [batch], state=state)
        expected = jax.tree.map(lambda e, p: 0.9 * e + 0.1 * np.asarray(p), expected, state.params)
    for a, b in zip(jax.tree.leaves(state.ema), jax.tree.leaves(expected)):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_several_updates_in_one_call_are_the_same_updates():
    batches = host_batches(ToyTask(), 6)
    one, rows_one = run(make_program(), batches, per_call=1)
    many, rows_many = run(make_program(), batches, per_call=3)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(many.params)):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    np.testing.assert_allclose([r["loss"] for r in rows_one], [r["loss"] for r in rows_many], 1e-6)


@pytest.mark.parametrize(
    "mesh",
    [MeshConfig(), MeshConfig(fsdp=4, fsdp_min_bytes=0), MeshConfig(data=2, fsdp=2, model=2)],
)
def test_every_mesh_makes_the_same_updates(mesh):
    batches = host_batches(ToyTask(), 3)
    one, _ = run(make_program(accumulation=2), batches)
    other, _ = run(make_program(accumulation=2, mesh=mesh), batches)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


class OverflowingTask(ToyTask, Resizable):
    """Asks for a replay when the batch holds a large value."""

    replay_reasons = ("overflow",)

    def loss(self, params, context, batch, key):
        output = super().loss(params, context, batch, key)
        full = jnp.any(jnp.abs(batch["x"]) > 50)
        return dataclasses.replace(output, suppress={"overflow": full})


def test_a_replayed_update_and_the_rest_of_its_call_leave_the_state_untouched():
    task = OverflowingTask()
    batches = host_batches(task, 4)
    batches[2]["x"][0, 0] = 100.0
    program = make_program(task)
    expected, _ = run(program, batches[:2])
    state, rows = run(program, batches, per_call=4)
    assert [row["replay"] for row in rows] == [0, 0, 1, 1]
    assert int(state.step) == 2 and int(state.skipped) == 0
    for name in ("params", "opt_state", "ema"):
        for a, b in zip(
            jax.tree.leaves(getattr(expected, name)), jax.tree.leaves(getattr(state, name))
        ):
            np.testing.assert_allclose(a, b, rtol=1e-6)


class TwoTermTask(ToyTask):
    """A second term that starts at update 2, with its own normalizer."""

    loss_terms = {"error": LossTerm(), "decay": LossTerm(0.1, required=False, window=(2, 100))}

    def loss(self, params, context, batch, key):
        output = super().loss(params, context, batch, key)
        norm = jnp.sum(params["dense"]["kernel"] ** 2)
        count = jnp.asarray(batch["x"].shape[0], jnp.float32)
        return dataclasses.replace(
            output, terms=output.terms | {"decay": Total(norm * count, count)}
        )

    def optimizer_groups(self, params):
        return {"dense": {"kernel": "kernel", "bias": "bias"}}


def test_a_term_counts_inside_its_window_only_and_shares_add_up():
    _, rows = run(make_program(TwoTermTask()), host_batches(ToyTask(), 4))
    assert [row["share/decay"] > 0 for row in rows] == [False, False, True, True]
    for row in rows:
        assert row["share/decay"] + row["share/error"] == pytest.approx(1.0)
    assert rows[3]["loss"] == pytest.approx(rows[3]["loss/error"] + 0.1 * rows[3]["loss/decay"])


def test_a_window_counts_applied_updates_only():
    batches = host_batches(ToyTask(), 5)
    batches[1]["x"][0, 0] = np.nan
    _, rows = run(make_program(TwoTermTask()), batches)
    assert [row["share/decay"] > 0 for row in rows] == [False, False, False, True, True]


def test_term_gradients_tell_which_group_a_term_reaches():
    program = make_program(TwoTermTask())
    batches = host_batches(ToyTask(), 4)
    state, _ = run(program, batches[:3])
    with jax.set_mesh(program.layout.mesh):
        norms = program.term_gradients(state, program.layout.put_batch(batches[3], 32))
    assert norms["decay"]["bias"] == 0.0 and norms["decay"]["kernel"] > 0
    assert norms["error"]["bias"] > 0 and norms["error"]["kernel"] > 0


class ProbedTask(ToyTask, Probing):
    """A zero added to the prediction; the loss gradient there is collected."""

    def init(self, key):
        params, _ = super().init(key)
        return params, {"seen": jnp.zeros((), jnp.int32), "screen": jnp.zeros((8, 2))}

    def probes(self, batch):
        return jnp.zeros((batch["x"].shape[0], 2))

    def absorb(self, model_state, probe_gradients):
        return model_state | {"screen": model_state["screen"] + probe_gradients[:8]}

    def loss(self, params, context, batch, key):
        moved = {**batch, "y": batch["y"] - context.probes}
        output = super().loss(params, context, moved, key)
        return LossOutput(output.terms, {**context.model_state, **output.model_state})


def test_probe_gradients_reach_the_model_state():
    task = ProbedTask()
    batches = host_batches(task, 1)
    program = make_program(task)
    with jax.set_mesh(program.layout.mesh):
        start = jax.tree.map(jnp.copy, program.initial_state().params)
    state, _ = run(program, batches)
    batch = batches[0]
    error = np.asarray(task.predict(start, batch["x"])) - batch["y"]
    expected = 2 * error * batch["w"][:, None] / batch["w"].sum()
    np.testing.assert_allclose(state.model_state["screen"], expected[:8], rtol=1e-5)


class FrozenRowsTask(ToyTask):
    """Only even rows of the kernel may change."""

    def loss(self, params, context, batch, key):
        output = super().loss(params, context, batch, key)
        rows = {"dense": {"kernel": jnp.arange(8) % 2 == 0, "bias": jnp.ones(2, bool)}}
        return dataclasses.replace(output, update_rows=rows)


@pytest.mark.parametrize("parts", [1, 2])
def test_rows_outside_the_update_keep_parameters_and_moments(parts):
    program = make_program(FrozenRowsTask(), accumulation=parts)
    with jax.set_mesh(program.layout.mesh):
        start = np.asarray(program.initial_state().params["dense"]["kernel"])
    state, _ = run(program, host_batches(ToyTask(), 2))
    kernel = np.asarray(state.params["dense"]["kernel"])
    np.testing.assert_array_equal(kernel[1::2], start[1::2])
    assert np.all(kernel[::2] != start[::2])
    assert np.all(np.asarray(state.opt_state.mu["dense"]["kernel"])[1::2] == 0)
