"""Mesh, sharding rules and rows per process, against hand tables and brute force."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from training.config import MeshConfig
from training.errors import ConfigError
from training.mesh import (
    Layout,
    batch_shards,
    check_batch,
    constrain_batch,
    make_mesh,
    state_shardings,
)


def mesh_of(data=1, fsdp=1, model=1):
    return make_mesh(MeshConfig(data, fsdp, model), jax.devices()[: data * fsdp * model])


def specs(shapes, mesh, **settings):
    tree = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    return {name: s.spec for name, s in state_shardings(tree, mesh, MeshConfig(**settings)).items()}


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (MeshConfig(), (8, 1, 1)),
        (MeshConfig(data=2, fsdp=-1), (2, 4, 1)),
        (MeshConfig(data=2, fsdp=2, model=2), (2, 2, 2)),
        (MeshConfig(data=1, fsdp=1, model=-1), (1, 1, 8)),
    ],
)
def test_the_free_axis_takes_the_devices_that_are_left(config, shape):
    mesh = make_mesh(config)
    assert tuple(mesh.shape.values()) == shape and mesh.axis_names == ("data", "fsdp", "model")
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert {d.id for d in mesh.devices.flat} == {d.id for d in jax.devices()}
    assert batch_shards(mesh) == shape[0] * shape[1]


@pytest.mark.parametrize(
    "config",
    [
        MeshConfig(data=3),
        MeshConfig(data=-1, fsdp=3),
        MeshConfig(data=-1, fsdp=-1),
        MeshConfig(data=16),
        MeshConfig(data=0),
        MeshConfig(data=-2, fsdp=-4),
        MeshConfig(data=2, fsdp=2, model=1),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused(config):
    with pytest.raises(ConfigError, match=r"config\.mesh .* does not fit 8 devices"):
        make_mesh(config)


@pytest.mark.parametrize(("batch", "parts"), [(30, 1), (8, 2), (24, 2), (4, 1)])
def test_an_indivisible_batch_is_told_all_four_numbers(batch, parts):
    with pytest.raises(ConfigError) as caught:
        check_batch(batch, parts, mesh_of(2, 4))
    sentence = f"= {parts} x 2 x 4 = {8 * parts}; change batch_size, accumulation or the mesh"
    assert f"config.batch_size = {batch} is not divisible" in str(caught.value)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("batch", "parts", "sentence"),
    [(0, 1, "config.batch_size = 0 must be"), (8, 0, "config.accumulation = 0 must be")],
)
def test_a_batch_or_accumulation_of_none_is_refused(batch, parts, sentence):
    with pytest.raises(ConfigError, match=sentence):
        check_batch(batch, parts, mesh_of(2, 4))


def test_divisible_batches_pass():
    for data, fsdp, parts in [(1, 1, 1), (2, 4, 1), (8, 1, 2), (1, 8, 4)]:
        check_batch(data * fsdp * parts * 3, parts, mesh_of(data, fsdp))


def test_the_fsdp_rule_table():
    """Largest dimension that divides by 4, first of equals; small or odd arrays stay whole."""
    shapes = {
        "largest": (64, 256),
        "first of equals": (64, 64, 3),
        "largest is odd": (257, 64),
        "nothing divides": (255, 63),
        "vector": (4096,),
        "small": (8, 8),
        "scalar": (),
        "stacked": (12, 128, 512),
    }
    assert specs(shapes, mesh_of(2, 4), fsdp_min_bytes=1024) == {
        "largest": P(None, "fsdp"),
        "first of equals": P("fsdp"),
        "largest is odd": P(None, "fsdp"),
        "nothing divides": P(),
        "vector": P("fsdp"),
        "small": P(),
        "scalar": P(),
        "stacked": P(None, None, "fsdp"),
    }
    assert set(specs(shapes, mesh_of(8, 1), fsdp_min_bytes=0).values()) == {P()}


def test_the_size_limit_of_the_fsdp_rule_is_in_bytes():
    shapes = {"below": (1023,), "at": (1024,)}
    tree = specs({"below": (1020,), "at": (1024,)}, mesh_of(1, 4), fsdp_min_bytes=4096)
    assert tree == {"below": P(), "at": P("fsdp")}
    assert specs(shapes, mesh_of(1, 4), fsdp_min_bytes=4097) == {"below": P(), "at": P()}


def test_rules_come_before_the_fsdp_rule_and_the_first_match_counts():
    shapes = {"mlp/kernel": (64, 256), "heads/kernel": (64, 256), "other": (64, 256)}
    rules = (("heads/.*", (None, "model")), ("kernel$", ("fsdp", "model")))
    assert specs(shapes, mesh_of(2, 2, 2), fsdp_min_bytes=0, rules=rules) == {
        "mlp/kernel": P("fsdp", "model"),
        "heads/kernel": P(None, "model"),
        "other": P(None, "fsdp"),
    }


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (("kernl", (None, "model")), "'kernl' matches no parameter; remove or fix it"),
        (("kernel", ("fsdp", "modle")), r"axes \('fsdp', 'modle'\) do not fit"),
        (("kernel", (None, None, "fsdp")), "do not fit mlp/kernel of shape"),
        (("kernel", ("model",)), "do not fit mlp/kernel of shape"),
        (("kernel", ("fsdp", "fsdp")), "do not fit mlp/kernel of shape"),
        (("[kernel", ("fsdp",)), "is not a regular expression"),
    ],
)
def test_a_rule_that_cannot_be_placed_is_refused(rule, sentence):
    with pytest.raises(ConfigError, match=sentence):
        specs(
            {"mlp/kernel": (63, 256)},
            mesh_of(1, 3 if "fsdp" not in rule[1] else 1, 2),
            rules=(rule,),
        )


def test_a_prng_key_is_replicated():
    tree = {"key": jax.eval_shape(lambda: jax.random.key(0))}
    shardings = state_shardings(tree, mesh_of(1, 4), MeshConfig(fsdp_min_bytes=0))
    assert shardings["key"].spec == P()


class FourProcesses(Layout):
    """The layout as process `rank` of `count` would see it: only its own devices are local."""

    def split(self, batch_size, count):
        everything = self.batch.devices_indices_map((batch_size,))
        flat = list(self.mesh.devices.flat)
        size = len(flat) // count
        for rank in range(count):
            mine = flat[rank * size : (rank + 1) * size]
            yield {device: everything[device] for device in mine}


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize(
    "shape", [(8, 1, 1), (2, 4, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4), (1, 1, 8)]
)
def test_the_rows_of_all_processes_are_the_batch_once_per_replica(monkeypatch, shape, count):
    layout = FourProcesses(mesh_of(*shape))
    seen = []
    for local in layout.split(32, count):
        monkeypatch.setattr(
            type(layout.batch), "addressable_devices_indices_map", lambda self, s, m=local: m
        )
        rows = layout.rows(32)
        assert np.all(np.diff(rows) > 0)
        # Brute force: every row that some device of the process holds.
        held = sorted({r for (s,) in local.values() for r in range(32)[s]})
        np.testing.assert_array_equal(rows, held)
        seen.append(rows)
    assert set(np.concatenate(seen).tolist()) == set(range(32))
    total = sum(map(len, seen))
    groups = {tuple(rows) for rows in seen}
    assert sum(map(len, groups)) == 32, "row groups must not overlap in part"
    assert total % 32 == 0


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 1, 8)])
def test_host_rows_become_the_global_batch_in_order(shape):
    layout = Layout(mesh_of(*shape))
    x = np.arange(16 * 3, dtype=np.float32).reshape(16, 3)
    placed = layout.put_batch({"x": x[layout.rows(16)]}, 16)["x"]
    np.testing.assert_array_equal(placed, x)
    assert placed.sharding.spec == P(("data", "fsdp"))
    stacked = layout.put_batches([{"x": x}, {"x": x + 1}], 16)["x"]
    np.testing.assert_array_equal(stacked, np.stack([x, x + 1]))
    assert stacked.sharding.spec == P(None, ("data", "fsdp"))


def test_a_process_with_too_few_rows_is_stopped_before_the_collective():
    layout = Layout(mesh_of(8))
    with pytest.raises(ConfigError, match=r"batch\['x'\] has 12 rows here instead of 16"):
        layout.put_batch({"x": np.zeros((12, 3))}, 16)


def test_activations_are_pinned_only_where_a_mesh_is_set_and_the_rows_divide():
    x = jnp.ones((16, 3))
    assert constrain_batch(x) is x
    with jax.set_mesh(mesh_of(2, 4)):
        assert jax.jit(constrain_batch)(x).sharding.spec == P(("data", "fsdp"))
        assert jax.jit(constrain_batch)(x[:3]).shape == (3, 3)


def test_replicated_values_are_whole_on_every_device():
    tree = Layout(mesh_of(2, 4)).replicate({"a": np.arange(5), "b": np.float32(2)})
    for leaf in jax.tree.leaves(tree):
        assert leaf.sharding.is_fully_replicated and len(leaf.addressable_shards) == 8
    np.testing.assert_array_equal(tree["a"], np.arange(5))


def test_layouts_are_values():
    layout = Layout(mesh_of(2, 4))
    assert dataclasses.replace(layout) == layout
