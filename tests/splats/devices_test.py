"""One device, many devices and sharded Gaussians give the same losses, gradients and images."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from splats.config import DensifyConfig
from tests.splats.scenes import (
    batches,
    losses,
    make_program,
    small_config,
    small_task,
)
from training.checkpoints import CheckpointStore
from training.config import CheckpointConfig, MeshConfig
from training.resume import data_position, open_state
from training.typed import plain

SAVED = small_config()  # stands for the config in the checkpoint
SHARDED = ((r"gaussians/|model_state/", ("fsdp",)),)
LAYOUTS = [
    pytest.param(MeshConfig(data=8), False, id="data 8"),
    pytest.param(MeshConfig(data=2, fsdp=4, rules=SHARDED), True, id="data 2, sharded over 4"),
]


pytestmark = pytest.mark.usefixtures("quick_compilation")


def anisotropic(state):
    """Round Gaussians have no gradient in rotation, only rounding errors of it."""
    gaussians = state.params["gaussians"]
    stretch = jnp.array([[0.6, 0.0, -0.6]])
    return replace(
        state, params={"gaussians": gaussians | {"scales": gaussians["scales"] + stretch}}
    )


@functools.cache
def program_on(devices, mesh, shard):
    densify = DensifyConfig("default", start=0, stop=50, every=1, reset_every=30, gradient=5e-5)
    task = small_task(
        batch_size=8,
        mesh=mesh,
        shard_gaussians=shard,
        densify=densify,
        losses=losses(opacity=0.01, scale=0.01, random_background=True),
        capacity=512,
    )
    return make_program(task, devices)


def result_on(devices, mesh, shard, folder=None):
    """An image, metrics of two updates with a refinement between them, and gradients.

    With a folder, the state after the refinement is saved there.
    """
    program = program_on(devices, mesh, shard)
    with jax.set_mesh(program.layout.mesh):
        state = anisotropic(program.initial_state())
        image = program.task.view_renderer(state)(2)
        state, read = program.step(state, batches(program, range(1)))
        first = read()[0]
        statistics = jax.device_get(state.model_state.gradients.mean())
        moments = jax.device_get(state.opt_state.mu["gaussians"])
        state, ledger = program.refresh(state)
        if folder is not None:
            save(program, state, folder)
        state, read = program.step(state, batches(program, range(1, 2)))
        return first, statistics, moments, ledger, read()[0], image


def save(program, state, folder):
    store = CheckpointStore(folder, CheckpointConfig(), 1)
    source = program.task.sources().train
    position = data_position(source, program.config, int(state.step))
    store.save(int(state.step), state, position, config=plain(SAVED), task=program.task.metadata())
    store.wait()
    store.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def one_device(folder):
    return result_on(1, MeshConfig(data=1), False, folder)


@pytest.mark.parametrize(("mesh", "shard"), LAYOUTS)
def test_updates_and_refinements_are_those_of_one_device(one_device, mesh, shard):
    first, statistics, moments, ledger, second, image = result_on(8, mesh, shard)
    expected = one_device
    for key in ("loss", "loss/l1", "loss/ssim", "grad_norm", "visible", "pairs"):
        np.testing.assert_allclose(first[key], expected[0][key], rtol=1e-5, err_msg=key)
    for key in (key for key in first if key.startswith(("grad_norm_", "reached"))):
        np.testing.assert_allclose(first[key], expected[0][key], rtol=1e-4, err_msg=key)
    # Adam turns rounding of gradients that are nearly zero into full steps, so later is looser.
    np.testing.assert_allclose(second["loss"], expected[4]["loss"], rtol=1e-4)
    np.testing.assert_allclose(image, expected[5], atol=1e-5)
    np.testing.assert_allclose(statistics, expected[1], rtol=1e-4, atol=1e-8)
    for leaf, gradient in moments.items():
        scale = np.abs(expected[2][leaf]).max() + 1e-12
        np.testing.assert_allclose(gradient / scale, expected[2][leaf] / scale, atol=1e-5)
    assert ledger == pytest.approx(expected[3], rel=1e-4)
    assert ledger["densify/cloned"] + ledger["densify/split"] > 0


@pytest.mark.parametrize(("mesh", "shard"), LAYOUTS)
def test_a_run_goes_on_exactly_on_another_number_of_devices(one_device, folder, mesh, shard):
    program = program_on(8, mesh, shard)
    with jax.set_mesh(program.layout.mesh):
        smaller = replace(program.task, capacity=256)  # as the config of a new launch would say
        store = CheckpointStore(folder, CheckpointConfig(), 1)
        restored_program, state = open_state(
            smaller, program.config, plain(SAVED), program.layout, 60, store, ()
        )
        store.close()
        assert restored_program.task.capacity == 512 and int(state.step) == 1
        assert int(state.model_state.alive.sum()) == one_device[3]["densify/alive"] > 250
        state, read = program.step(state, batches(program, range(1, 2)))
    np.testing.assert_allclose(read()[0]["loss"], one_device[4]["loss"], rtol=1e-5)
    np.testing.assert_allclose(read()[0]["grad_norm"], one_device[4]["grad_norm"], rtol=1e-4)
