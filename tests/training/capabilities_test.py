"""What the core offers to systems that need more, each seen on a toy."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.toy import ToyTask, toy_program
from training.capabilities import (
    Averaged,
    Cadence,
    OptimizerOwner,
    Refreshable,
    Varied,
    Witnessed,
)
from training.checkpoint.store import CheckpointReader
from training.config import (
    CheckpointConfig,
    Duration,
    EmaConfig,
    EvaluationConfig,
    LogConfig,
    MeshConfig,
    OptimizerConfig,
    TrainConfig,
)
from training.guards.watch import LossSpike
from training.loop import Run, fit
from training.loss import LossOutput, LossTerm, Total
from training.mesh import Layout, make_mesh
from training.optimizer import FROZEN, label_by_rules
from training.plan import make_plan
from training.record.metrics import read_metrics
from training.replay import replay
from training.source import Sources
from training.verdict import Description, Evaluation, Verdict

CONFIG = TrainConfig(
    "toy",
    batch_size=16,
    total=Duration(updates=8),
    mesh=MeshConfig(data=1, model=-1),
    optimizer=OptimizerConfig(learning_rate=1e-2),
    evaluation=EvaluationConfig(every=Duration(updates=8), batch_size=8, at_start=False),
    checkpoint=CheckpointConfig(every=Duration(updates=8)),
    log=LogConfig(every=1),
)


def one_step(task, config=CONFIG, updates=1):
    """The program, the state before and after, and the metrics of the first updates."""
    program = toy_program(task, config, Layout(make_mesh(config.mesh)))
    source = task.sources().train
    rows = []
    with jax.set_mesh(program.layout.mesh):
        state = program.initial_state()
        before = jax.device_get(state.params)
        for step in range(updates):
            examples = [source[step * 16 + i] for i in range(16)]
            batch = {key: np.stack([e[key] for e in examples]) for key in examples[0]}
            batch["position"] = np.arange(step * 16, step * 16 + 16, dtype=np.uint32)
            batches = program.layout.put_batches([batch], 16)
            state, read = program.step(state, batches)
            rows += read()
    return program, before, state, rows


class RampedTask(ToyTask):
    """A term whose weight is the number of examples seen, over that of the whole run."""

    loss_terms = {"error": LossTerm(lambda applied, state: state["seen"] / 128.0)}


def test_a_coefficient_sees_the_model_state():
    _, _, _, rows = one_step(RampedTask(), updates=3)
    for row, seen in zip(rows, (0, 16, 32)):
        np.testing.assert_allclose(row["loss"], row["loss/error"] * seen / 128, rtol=1e-6)


class HorizonTask(ToyTask):
    """Reports what it sees of the horizon."""

    def loss(self, params, context, batch, key):
        output = super().loss(params, context, batch, key)
        left = jnp.float32(context.total) - context.applied
        return dataclasses.replace(output, metrics={"left": Total(left, jnp.float32(1))})


def test_a_loss_knows_how_long_the_run_is():
    _, _, _, rows = one_step(HorizonTask(), updates=2)
    assert [row["left"] for row in rows] == [100.0, 99.0]


class FrozenTask(ToyTask):
    """The bias is never trained."""

    def init(self, key):
        params, state = super().init(key)
        return {"dense": {**params["dense"], "bias": jnp.ones(2)}}, state

    def optimizer_groups(self, params):
        return label_by_rules(params, [(".*bias", FROZEN), (".*", "rest")])


@pytest.mark.parametrize("accumulation", [1, 2])
def test_frozen_parameters_stay_and_have_neither_moments_nor_guards(accumulation):
    config = dataclasses.replace(CONFIG, accumulation=accumulation, ema=EmaConfig("constant", 0.5))
    program, before, state, rows = one_step(FrozenTask(), config, updates=2)
    np.testing.assert_array_equal(state.params["dense"]["bias"], before["dense"]["bias"])
    assert not np.array_equal(state.params["dense"]["kernel"], before["dense"]["kernel"])
    assert state.opt_state.mu["dense"]["bias"] is None
    names = {name for name in rows[0] if name.startswith("grad_norm/")}
    assert names == {"grad_norm/rest"}
    np.testing.assert_allclose(rows[0]["grad_norm"], rows[0]["grad_norm/rest"], rtol=1e-6)
    with jax.set_mesh(program.layout.mesh):
        batch = {k: x[0] for k, x in toy_batches(program).items()}
        assert set(program.term_gradients(state, batch)["error"]) == {"rest"}


def toy_batches(program):
    examples = [program.task.sources().train[i] for i in range(16)]
    batch = {key: np.stack([e[key] for e in examples]) for key in examples[0]}
    batch["position"] = np.arange(16, dtype=np.uint32)
    return program.layout.put_batches([batch], 16)


class StatisticsTask(ToyTask, Averaged):
    """Keeps a running mean in its model state and averages it with the kernel."""

    def init(self, key):
        params, _ = super().init(key)
        return params, {"seen": jnp.zeros((), jnp.int32), "mean": jnp.zeros(())}

    def loss(self, params, context, batch, key):
        output = super().loss(params, context, batch, key)
        return LossOutput(output.terms, {**output.model_state, "mean": jnp.mean(batch["x"]) + 1})

    def averaged(self, params, model_state):
        return {"kernel": params["dense"]["kernel"], "mean": model_state["mean"]}


def test_the_average_may_follow_the_model_state():
    config = dataclasses.replace(CONFIG, ema=EmaConfig("constant", 0.75))
    _, _, state, rows = one_step(StatisticsTask(), config, updates=1)
    mean = float(state.model_state["mean"])
    assert mean > 0.5 and rows[0]["ema_update_norm"] > 0
    np.testing.assert_allclose(state.ema["mean"], 0.25 * mean, rtol=1e-6)


class FastTask(ToyTask, OptimizerOwner):
    def optimizer(self):
        return dataclasses.replace(self.config.optimizer, learning_rate=0.5)


def test_a_task_may_derive_its_optimizer_from_other_settings():
    assert one_step(FastTask())[3][0]["learning_rate"] > 10 * 1e-2 / 3


@pytest.mark.parametrize("accumulation", [2, 4])
def test_gradients_of_terms_do_not_depend_on_accumulation(accumulation):
    norms = []
    for parts in (1, accumulation):
        config = dataclasses.replace(CONFIG, accumulation=parts)
        program = toy_program(ToyTask(), config, Layout(make_mesh(config.mesh)))
        with jax.set_mesh(program.layout.mesh):
            batch = {k: x[0] for k, x in toy_batches(program).items()}
            norms.append(program.term_gradients(program.initial_state(), batch)["error"]["all"])
    # Sums of 16 fp32 terms in another order: 16 roundings of 6e-8 each.
    np.testing.assert_allclose(norms[0], norms[1], rtol=2e-6)


@dataclasses.dataclass(frozen=True)
class WideSource:
    """Examples whose width depends on where they stand: that of their update's variant."""

    length: int = 64
    fingerprint: str = "wide"

    def __len__(self):
        return self.length

    def identity(self, index):
        return f"wide-{index}"

    def __getitem__(self, index):
        return self.load(index, 0)

    def load(self, index, position):
        width = variant_at(position // CONFIG.batch_size)
        x = np.random.default_rng(index).normal(size=width).astype(np.float32)
        return {"x": x, "y": np.float32(x[:4].sum())}


def variant_at(step):
    """Two updates of 4 values, one of 8, one of 4, and so on."""
    return 8 if step % 3 == 2 else 4


@dataclasses.dataclass(frozen=True)
class VariedTask(ToyTask, Varied):
    """Learns the sum of the first values from inputs of two widths."""

    width: int = 4
    variants = (4, 8)

    def variant(self, step):
        return variant_at(step)

    def as_variant(self, variant):
        return dataclasses.replace(self, width=variant)

    def sources(self):
        return Sources(WideSource(), {"validation": super().sources().evaluation["validation"]})

    def init(self, key):
        return {"dense": {"kernel": 0.1 * jax.random.normal(key, (8,))}}, None

    def loss(self, params, context, batch, key):
        assert batch["x"].shape[-1] == self.width, "each update is traced at its own width"
        error = batch["x"] @ params["dense"]["kernel"][: self.width] - batch["y"]
        width = Total(jnp.float32(self.width), jnp.float32(1))
        total = Total(jnp.sum(error**2), jnp.float32(len(error)))
        return LossOutput({"error": total}, None, {"width": width})

    def evaluate(self, state, source, layout):
        return Evaluation({"norm": float(jnp.sum(state.params["dense"]["kernel"] ** 2))})

    def describe(self):
        keys = {"x": ((self.width,), "float32"), "y": ((), "float32")}
        return Description({"dense": 8}, 16.0, keys)


@pytest.mark.parametrize("per_call", [1, 4])
def test_a_run_of_several_shapes_compiles_each_once_and_cuts_its_calls(tmp_path, per_call):
    config = dataclasses.replace(CONFIG, updates_per_call=per_call, total=Duration(updates=9))
    plan = make_plan(VariedTask(config), None)
    calls = list(plan.calls(0))
    assert sum(updates for _, updates in calls) == 9
    for first, updates in calls:
        assert len({variant_at(step) for step in range(first, first + updates)}) == 1
    assert fit(VariedTask(config), tmp_path) == "done"
    rows = {row["step"]: row for row in read_metrics(tmp_path) if "train/width" in row}
    assert [rows[step]["train/width"] for step in range(1, 10)] == [4, 4, 8] * 3


def test_steps_of_every_variant_lower_from_abstract_batches():
    program = toy_program(VariedTask(), CONFIG, Layout(make_mesh(CONFIG.mesh)))
    for width in VariedTask.variants:
        shapes = program.abstract_batches(2, width)
        assert shapes["x"].shape == (2, 16, width) and shapes["position"].dtype == jnp.uint32
        assert f"2x16x{width}xf32" in program.lower(2, width).as_text()


@dataclasses.dataclass(frozen=True)
class CacheTask(ToyTask, Refreshable):
    """Rewrites a cache on a cadence; the loss is the same afterward, or is not."""

    refresh_changes_loss: bool = False
    refresh_cadence = Cadence(3)

    def refresh(self, state, context, batch):
        return state, {"cache/rows": jnp.float32(batch["x"].shape[0])}


@pytest.mark.parametrize("changes", [False, True])
def test_only_a_refresh_that_changes_the_loss_makes_guards_begin_anew(
    tmp_path, monkeypatch, changes
):
    restarts = []
    restart = LossSpike.restart
    monkeypatch.setattr(LossSpike, "restart", lambda self: restarts.append(1) or restart(self))
    assert fit(CacheTask(CONFIG, refresh_changes_loss=changes), tmp_path) == "done"
    # Once at its making, once for the term that begins, and after each refresh if that matters.
    assert len(restarts) == 2 + 2 * changes
    rows = [row for row in read_metrics(tmp_path) if "cache/rows" in row]
    assert [row["step"] for row in rows] == [3, 6] and rows[0]["cache/rows"] == 16


def test_a_program_for_other_devices_runs_nothing_on_them(monkeypatch):
    """Any computation or upload while it is built and lowered would need the devices."""
    config = dataclasses.replace(CONFIG, mesh=MeshConfig(data=8), ema=EmaConfig("cosine"))
    layout = Layout(make_mesh(config.mesh))

    def refuse(*_, **__):
        raise AssertionError("a computation on a device that is not attached")

    with jax.set_mesh(layout.mesh), monkeypatch.context() as unattached:
        # Every eager operation of jax.numpy and every jitted call ends in one of these two.
        unattached.setattr("jax._src.interpreters.pxla.ExecuteReplicated.__call__", refuse)
        unattached.setattr("jax._src.dispatch.apply_primitive", refuse)
        unattached.setattr("jax.device_put", refuse)
        program = toy_program(ToyTask(), config, layout)
        lowered = program.lower(updates=2)
    assert "8" in str(program.layout.mesh.size) and lowered.out_info[1].shape[0] == 2


def test_a_run_shows_the_sizes_of_its_mesh_not_of_the_process(tmp_path):
    config = dataclasses.replace(CONFIG, mesh=MeshConfig(data=1))
    layout = Layout(make_mesh(config.mesh, jax.devices()[:1]))
    with jax.set_mesh(layout.mesh):
        run = Run(ToyTask(config), tmp_path, layout, (), ())
        assert functools.reduce(int.__mul__, layout.mesh.devices.shape) == 1
        run.close("stopped", "test")


def test_a_recorded_step_is_replayed_in_its_own_shape(tmp_path, monkeypatch):
    """Step 3 has 8 values, step 2 has 4; both are recorded, since every loss is called a spike."""
    config = dataclasses.replace(CONFIG, total=Duration(updates=9))
    monkeypatch.setattr(LossSpike, "check", always_spiking)
    assert fit(VariedTask(config), tmp_path) == "done"
    monkeypatch.setattr("training.replay.read_config", lambda workdir: config)
    monkeypatch.setattr("training.replay.make_task", VariedTask)
    logged = {row["step"]: row for row in read_metrics(tmp_path) if "train/loss" in row}
    for step, width in ((2, 4.0), (3, 8.0)):
        row = replay(tmp_path, step, lambda sentence: None)
        assert row["width"] == width
        # The same program on one device: 16 terms added in the same order.
        np.testing.assert_allclose(row["loss"], logged[step]["train/loss"], rtol=1e-6)


def always_spiking(watch, step, metrics):
    return Verdict("loss-spike", False, f"step {step}", warning=True)


class WitnessedTask(ToyTask, Witnessed):
    """Says how large its parameters are."""

    def witness(self, state, resident):
        del resident
        return {"size": float(sum(jnp.sum(jnp.abs(p)) for p in jax.tree.leaves(state.params)))}


def test_a_checkpoint_carries_the_figures_of_the_state_that_it_holds(tmp_path):
    fit(WitnessedTask(CONFIG), tmp_path)
    reader = CheckpointReader(tmp_path)
    saved = reader.describe(8)
    params = {
        path: jax.ShapeDtypeStruct(spec.shape, spec.dtype)
        for path, spec in saved.leaves.items()
        if path.startswith("params/")
    }
    found = reader.restore_subtree(8, params)
    size = sum(float(np.abs(leaf).sum()) for leaf in found.values())
    np.testing.assert_allclose(saved.task["witness"]["size"], size, rtol=1e-5)
