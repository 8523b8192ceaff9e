"""The exchange of visible Gaussians, against rendering with all of them on one device."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from splats.config import LossConfig, RenderConfig
from splats.gaussians.exchange import pack, rows_per_shard
from splats.losses import bilateral, poses
from splats.losses.over_devices import batch_sums
from splats.losses.view_sums import BatchInputs, SceneModel, ViewComparison
from splats.render.renderer import Screen
from tests.splats.scenes import batches, make_program, small_config, small_scene, small_task
from training.config import MeshConfig
from training.mesh import Layout, make_mesh

pytestmark = pytest.mark.usefixtures("quick_compilation")

SLOTS, VIEWS, DEVICES = 256, 4, 4
MESH = MeshConfig(data=2, fsdp=2)


def random_screen(key, count):
    keys = iter(jax.random.split(key, 8))
    shapes = {"means2d": (2,), "conics": (3,), "channels": (3,), "opacities": ()}
    shapes |= {"extents": (2,), "depths": ()}
    leaves = {n: jax.random.normal(next(keys), (count, *shape)) for n, shape in shapes.items()}
    return Screen(**leaves, visible=jax.random.bernoulli(next(keys), 0.4, (count,)))


@pytest.mark.parametrize("rows", [5, 40])
def test_a_parcel_holds_the_visible_rows_in_order_and_says_how_many_there_are(new_key, rows):
    screen = random_screen(new_key(), 40)
    probes = {"absgrad": jnp.zeros((40, 2))}
    parcel = pack(screen, probes, rows)
    expected = np.flatnonzero(screen.visible)
    held = expected[:rows]
    assert int(parcel.count) == len(expected) > 5
    np.testing.assert_array_equal(parcel.smooth[: len(held), :2], screen.means2d[held])
    np.testing.assert_array_equal(parcel.smooth[: len(held), 5], screen.opacities[held])
    np.testing.assert_array_equal(parcel.fixed[: len(held), 2], screen.depths[held])
    assert parcel.smooth.shape == (rows, 11) and bool(jnp.all(jnp.isfinite(parcel.smooth)))


def test_the_gradient_of_a_parcel_goes_to_the_rows_that_were_sent(new_key):
    screen = random_screen(new_key(), 40)
    weights = jax.random.normal(new_key(), (40, 2))

    def sent(probe):
        parcel = pack(screen, {"means2d": probe}, 40)
        present = (jnp.arange(40) < parcel.count).astype(jnp.float32)
        return jnp.sum(parcel.smooth[:, :2] * present[:, None] * weights)

    gradient = jax.grad(sent)(jnp.zeros((40, 2)))
    visible = np.flatnonzero(screen.visible)
    expected = np.zeros((40, 2), np.float32)
    expected[visible] = weights[: len(visible)]
    np.testing.assert_allclose(gradient, expected)


def test_rows_of_a_shard_are_its_part_of_the_room_and_never_more_than_it_has():
    assert rows_per_shard(1000, 512, 4) == 250
    assert rows_per_shard(1001, 512, 4) == 251
    assert rows_per_shard(10_000, 512, 4) == 512


@pytest.fixture(scope="module")
def scene_task():
    model = replace(small_config().model, bilateral_grid=True, pose_correction=True)
    return small_task(SLOTS, model=model, losses=LossConfig(random_background=True))


def scattered(task):
    """Parameters with Gaussians in every third slot or so, many of them out of sight of a view."""
    params, state = task.init(jax.random.key(1))
    gaussians = params["gaussians"]
    alive = state.alive & (jax.random.uniform(jax.random.key(2), (SLOTS,)) < 0.5)
    shift = 4.0 * jax.random.normal(jax.random.key(3), (SLOTS, 3))
    stretch = jax.random.normal(jax.random.key(4), (SLOTS, 3)) - 0.5
    gaussians |= {"means": gaussians["means"] + shift, "scales": gaussians["scales"] + stretch}
    grids = bilateral.identity_grids(len(small_scene().train))
    grids = grids + 0.05 * jax.random.normal(jax.random.key(5), grids.shape)
    moved = 0.01 * jax.random.normal(
        jax.random.key(6), poses.no_corrections(len(small_scene().train)).shape
    )
    return {"gaussians": gaussians, "bilateral": grids, "poses": moved}, alive


def sums_with_gradients(task, mesh, exchange_rows):
    """Loss, sums, gradients of parameters and probes, and the compiled program's text."""
    comparison = ViewComparison(task.settings, task.config.losses)
    params, alive = scattered(task)
    resident = jax.tree.map(jnp.asarray, task.resident())
    background = jax.random.uniform(jax.random.key(7), (VIEWS, 3))

    def loss(params, probes):
        model = SceneModel(params, alive, jnp.int32(1), resident)
        inputs = BatchInputs(jnp.arange(VIEWS), background, probes)
        sums = batch_sums(comparison, model, inputs, exchange_rows)
        return sums.totals["l1"].sum + 100.0 * sums.totals["ssim"].sum, sums

    probes = {name: jnp.zeros((VIEWS, SLOTS, 2)) for name in ("means2d", "absgrad")}
    with jax.set_mesh(mesh):
        gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        compiled = gradient.lower(params, probes).compile()
        (value, sums), gradients = compiled(params, probes)
    return float(value), sums, gradients, compiled.as_text()


def mesh_of(config, devices):
    return Layout(make_mesh(config, jax.devices()[:devices])).mesh


def sent_floats(text):
    """Elements of all float32 arrays that the all-to-alls of a compiled program return."""
    results = re.findall(r"= (.*?) all-to-all\(", text)
    return sum(
        int(np.prod([int(n) for n in shape.split(",")]))
        for result in results
        for shape in re.findall(r"f32\[([\d,]+)\]", result)
    )


@pytest.mark.slow
def test_sums_and_all_gradients_are_those_of_one_device(scene_task):
    rows = 160
    expected = sums_with_gradients(scene_task, mesh_of(MeshConfig(data=1), 1), None)
    result = sums_with_gradients(scene_task, mesh_of(MESH, DEVICES), rows)
    value, sums, gradients, text = result
    assert not bool(sums.incomplete)
    assert value == pytest.approx(expected[0], rel=1e-5)
    np.testing.assert_array_equal(sums.seen, expected[1].seen)
    assert float(jnp.max(sums.seen)) > float(jnp.min(sums.seen)) == 0
    for (path, leaf), (_, other) in zip(
        jax.tree.leaves_with_path(gradients), jax.tree.leaves_with_path(expected[2])
    ):
        largest = float(jnp.max(jnp.abs(other)))
        assert largest > 0, path
        np.testing.assert_allclose(leaf / largest, other / largest, atol=2e-5, err_msg=str(path))
    # What docs/splats.md says: 12 floats there and 9 back per row, and 2 each way for absgrad.
    assert sent_floats(text) == (12 + 2 + 9 + 2) * rows * VIEWS // DEVICES


def test_an_incomplete_exchange_holds_the_update_back_until_there_is_room():
    task = small_task(
        SLOTS,
        batch_size=VIEWS,
        mesh=MESH,
        shard_gaussians=True,
        render=RenderConfig(pair_capacity=4096, exchange_capacity=SLOTS // 2),
    )
    program = make_program(task, DEVICES)
    with jax.set_mesh(program.layout.mesh):
        state = program.initial_state()
        for leaf in (state.params["gaussians"]["means"], state.opt_state.nu["gaussians"]["sh0"]):
            assert leaf.sharding.spec == PartitionSpec("fsdp")
        before = jax.device_get((state.params, state.opt_state, state.model_state))
        state, read = program.step(state, batches(program, range(1)))
        (row,) = read()
        assert row["suppressed/exchange"] == row["replay"] == 1.0
        assert row["suppressed/overflow"] == row["skipped"] == 0.0 == int(state.step)
        after = jax.device_get((state.params, state.opt_state, state.model_state))
        jax.tree.map(np.testing.assert_array_equal, before, after)

        program, state = program.resized(state, "exchange")
        state, read = program.step(state, batches(program, range(1)))
        assert read()[0]["replay"] == 0.0 and int(state.step) == 1
        assert read()[0]["visible"] > SLOTS // 2
    assert task.with_metadata(program.task.metadata()).sizes.exchange_capacity == SLOTS
