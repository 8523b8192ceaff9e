"""The compiled program: what is communicated, where the state lies, what is kept and counted."""

from __future__ import annotations

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from tests.training.toy import ToyTask, task_with
from tests.training.toy import toy_program as program_of
from training import distributed
from training.capabilities import Cadence, Refreshable, Resizable
from training.config import EmaConfig, GroupConfig, MeshConfig, OptimizerConfig, TrainConfig
from training.errors import ConfigError
from training.loss import LossOutput, Total
from training.mesh import Layout, constrain_batch, make_mesh
from training.paths import named_leaves
from training.verdict import Description

LAYERS, WIDTH = 4, 256


class DeepTask(ToyTask):
    """Four square layers, large enough for collectives to matter."""

    def init(self, key):
        keys = jax.random.split(key, LAYERS)
        layers = [0.05 * jax.random.normal(k, (WIDTH, WIDTH)) for k in keys]
        return {f"layer_{i}": {"kernel": kernel} for i, kernel in enumerate(layers)}, None

    def loss(self, params, context, batch, key):
        x = batch["x"]
        for layer in params.values():
            x = constrain_batch(jax.nn.gelu(x @ layer["kernel"]))
        error = jnp.sum((x - batch["y"]) ** 2)
        return LossOutput({"error": Total(error, jnp.float32(x.shape[0]))}, None)

    def describe(self):
        return Description({}, 0.0, {})


@functools.cache
def compiled(mesh, parts):
    """The step of the deep task for a mesh and a number of micro-batches, compiled."""
    config = TrainConfig(
        "toy", batch_size=64, accumulation=parts, mesh=mesh, ema=EmaConfig("constant")
    )
    program = program_of(DeepTask(), config, Layout(make_mesh(mesh)))
    sharding = NamedSharding(program.layout.mesh, P(None, ("data", "fsdp")))
    batch = jax.ShapeDtypeStruct((1, 64, WIDTH), jnp.float32, sharding=sharding)
    with jax.set_mesh(program.layout.mesh):
        return program.lower(batches={"x": batch, "y": batch}).compile()


def collectives(text):
    """Operation -> the shapes of its results, those of combined operations one by one."""
    names = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    found = {}
    for results, name in re.findall(rf"= (.*?) ({names})(?:-start)?\(", text):
        found.setdefault(name, []).extend(re.findall(r"f32\[[\d,]*\]", results))
    return found


FSDP = MeshConfig(data=1, fsdp=8, fsdp_min_bytes=0)
WHOLE, PART = f"f32[{WIDTH},{WIDTH}]", f"f32[{WIDTH // 8},{WIDTH}]"


@pytest.mark.parametrize("parts", [1, 4])
def test_fsdp_gathers_kernels_reduces_gradients_and_moves_no_activation(parts):
    found = collectives(compiled(FSDP, parts).as_text())
    # With accumulation the first micro-batch stands before the loop, so that all appears twice.
    copies = min(parts, 2)
    assert set(found) <= {"all-gather", "all-reduce", "reduce-scatter"}
    assert found["all-gather"] == [WHOLE] * LAYERS * copies
    reduced = found["all-reduce"] + found.get("reduce-scatter", [])
    assert len([shape for shape in reduced if shape != "f32[]"]) == LAYERS * copies


def test_accumulated_gradients_are_carried_in_shards():
    loops = [line for line in compiled(FSDP, 4).as_text().splitlines() if " while(" in line]
    carried = max((line.split(" while(")[0].count(PART) for line in loops), default=0)
    assert carried == LAYERS


@pytest.mark.parametrize("parts", [1, 4])
def test_fsdp_keeps_an_eighth_of_the_state_on_each_device(parts):
    state = 4 * LAYERS * WIDTH**2 * 4  # parameters, two moments, average; fp32
    batch = 2 * 64 * WIDTH * 4 / 8
    memory = compiled(FSDP, parts).memory_analysis()
    assert memory.argument_size_in_bytes == pytest.approx(state / 8 + batch, rel=0.01)
    assert memory.alias_size_in_bytes >= state / 8, "the state is donated"


def test_data_parallel_reduces_each_gradient_once_and_nothing_else():
    found = collectives(compiled(MeshConfig(), 1).as_text())
    assert set(found) == {"all-reduce"}
    assert [shape for shape in found["all-reduce"] if shape != "f32[]"] == [WHOLE] * LAYERS


def toy_program(task=None, mesh=MeshConfig(data=1, model=-1), **changes):  # noqa: B008
    config = TrainConfig("toy", batch_size=32, mesh=mesh, ema=EmaConfig("constant"))
    config = dataclasses.replace(config, **changes)
    return program_of(task, config, Layout(make_mesh(mesh)))


def test_moments_and_averages_lie_where_their_parameter_lies():
    program = toy_program(mesh=MeshConfig(data=2, fsdp=4, fsdp_min_bytes=0))
    leaves = named_leaves(program.abstract_state)
    for name in ("params", "opt_state/mu", "opt_state/nu", "ema"):
        assert leaves[f"{name}/dense/kernel"].sharding.spec == P("fsdp")
    assert leaves["step"].sharding.spec == P()
    with jax.set_mesh(program.layout.mesh):
        state = program.initial_state()
    for name, leaf in named_leaves(state).items():
        assert leaf.sharding == leaves[name].sharding and leaf.shape == leaves[name].shape


def test_the_initial_state_does_not_depend_on_the_mesh():
    states = []
    for mesh in (MeshConfig(data=1, model=-1), MeshConfig(data=2, fsdp=4, fsdp_min_bytes=0)):
        program = toy_program(mesh=mesh)
        with jax.set_mesh(program.layout.mesh):
            states.append(program.initial_state().params)
    for a, b in zip(*map(jax.tree.leaves, states)):
        np.testing.assert_array_equal(a, b)


def test_another_seed_is_another_state_and_the_average_starts_at_the_parameters():
    first, second = toy_program().initial_state(), toy_program(seed=1).initial_state()
    assert not np.array_equal(first.params["dense"]["kernel"], second.params["dense"]["kernel"])
    np.testing.assert_array_equal(first.params["dense"]["kernel"], first.ema["dense"]["kernel"])
    mine, average = (
        jax.tree.leaves(tree)[1].addressable_data(0) for tree in (first.params, first.ema)
    )
    assert mine.unsafe_buffer_pointer() != average.unsafe_buffer_pointer(), "buffers are donated"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"batch_size": 30, "mesh": MeshConfig()}, "config.batch_size = 30 is not divisible"),
        ({"accumulation": 3}, "accumulation x data x fsdp = 3 x 1 x 1"),
        ({"optimizer": OptimizerConfig(groups=(GroupConfig("al"),))}, "did you mean all"),
        ({"mesh": MeshConfig(rules=(("kernl", ("fsdp",)),))}, "'kernl' matches no parameter"),
    ],
)
def test_a_config_that_cannot_run_is_refused_when_the_program_is_made(changes, sentence):
    with pytest.raises(ConfigError) as caught:
        toy_program(**{"mesh": MeshConfig(data=1, model=-1), **changes})
    assert sentence in str(caught.value)


class UnlabeledTask(ToyTask):
    def optimizer_groups(self, params):
        return {"dense": {"kernel": "all"}}


class WrongTermsTask(ToyTask):
    def loss(self, params, context, batch, key):
        output = super().loss(params, context, batch, key)
        return dataclasses.replace(output, terms={"eror": output.terms["error"]})


def test_groups_that_leave_out_a_parameter_are_refused():
    with pytest.raises(ConfigError, match="do not cover exactly its parameters"):
        toy_program(UnlabeledTask())


def test_a_loss_that_returns_other_terms_than_declared_is_refused():
    program = toy_program(WrongTermsTask())
    batch = {"x": jnp.zeros((1, 32, 8)), "y": jnp.zeros((1, 32, 2)), "w": jnp.ones((1, 32))}
    with jax.set_mesh(program.layout.mesh), pytest.raises(ConfigError, match=r"\['eror'\] but"):
        program.step(program.initial_state(), batch)


@dataclasses.dataclass(frozen=True)
class GrowingTask(ToyTask, Refreshable, Resizable):
    """The number of outputs may grow."""

    outputs: int = 2
    refresh_cadence = Cadence(5)

    def resize(self, state, reason):
        def widen(leaf):
            grows = leaf.ndim and leaf.shape[-1] == 2
            return np.concatenate([leaf, leaf], -1) if grows else np.asarray(leaf)

        task = dataclasses.replace(self, outputs=4)
        parts = {n: jax.tree.map(widen, getattr(state, n)) for n in ("params", "opt_state", "ema")}
        return task, dataclasses.replace(state, **parts)

    def init(self, key):
        kernel = jax.random.normal(key, (8, self.outputs))
        return {"dense": {"kernel": kernel, "bias": jnp.zeros(self.outputs)}}, {
            "seen": jnp.zeros((), jnp.int32)
        }

    def refresh(self, state, context, batch):
        params = jax.tree.map(lambda x: x * 2, state.params)
        row = {"largest": jnp.max(batch["x"]), "left": context.total - context.applied}
        return dataclasses.replace(state, params=params), row


def test_refresh_rewrites_the_state_and_returns_its_ledger_row():
    program = toy_program(GrowingTask())
    with jax.set_mesh(program.layout.mesh):
        before = np.asarray(program.initial_state().params["dense"]["kernel"])
        batch = {"x": jnp.arange(32 * 8.0).reshape(32, 8)}
        state, row = program.refresh(program.initial_state(), batch)
    assert row == {"largest": 255.0, "left": 100.0}, "it sees the batch, the horizon and the state"
    np.testing.assert_array_equal(state.params["dense"]["kernel"], 2 * before)


def test_a_resized_program_goes_on_from_the_same_values():
    program = toy_program(GrowingTask())
    with jax.set_mesh(program.layout.mesh):
        state = program.initial_state()
        before = np.asarray(state.params["dense"]["kernel"])
        larger, state = program.resized(state, "overflow")
        batch = {"x": jnp.ones((1, 32, 8)), "y": jnp.zeros((1, 32, 4)), "w": jnp.ones((1, 32))}
        np.testing.assert_array_equal(state.params["dense"]["kernel"][:, 2:], before)
        state, read = larger.step(state, batch)
    assert int(state.step) == 1 and read()[0]["grad_norm"] > 0


def test_hosts_compare_the_program_that_they_are_about_to_compile(monkeypatch):
    """What a host computes from its number goes into the program of that host alone."""

    def compared(factor):
        def loss(params, context, batch, key):
            output = ToyTask().loss(params, context, batch, key)
            return dataclasses.replace(
                output, terms={n: Total(t.sum * factor, t.weight) for n, t in output.terms.items()}
            )

        program = program_of(
            task_with(loss=loss), TrainConfig("toy", batch_size=8), Layout(make_mesh(MeshConfig()))
        )
        with jax.set_mesh(program.layout.mesh), monkeypatch.context() as patch:
            state = program.initial_state()
            sharding = NamedSharding(program.layout.mesh, P(None, ("data", "fsdp")))
            batch = {
                name: jnp.zeros(leaf.shape, leaf.dtype, device=sharding)
                for name, leaf in program.abstract_batches().items()
            }
            seen = []
            patch.setattr(jax, "process_count", lambda: 2)
            patch.setattr(distributed, "assert_same", lambda name, value: seen.append(value))
            program.compile_step(state, batch)
            program.compile_step(state, batch)
        return seen

    (same,), (again,), (other,) = compared(1.0), compared(1.0), compared(2.0)
    assert same == again != other
