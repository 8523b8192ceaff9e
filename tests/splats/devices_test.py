"""One device, many devices and sharded Gaussians give the same losses, gradients and images."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from splats.config import DensifyConfig, RenderConfig
from splats.devices import composite_screen, project_shard
from splats.render import render
from splats.views import camera_of
from tests.splats.scenes import (
    batches,
    losses,
    make_program,
    quick_compilation,
    small_scene,
    small_task,
)
from training.config import MeshConfig

SHARDED = ((r"gaussians/|model_state/", ("fsdp",)),)
LAYOUTS = [
    pytest.param(MeshConfig(data=8), False, id="data 8"),
    pytest.param(MeshConfig(data=2, fsdp=4, rules=SHARDED), True, id="data 2, sharded over 4"),
    pytest.param(
        MeshConfig(data=1, fsdp=8, rules=SHARDED),
        True,
        id="sharded over 8",
        marks=pytest.mark.slow,
    ),
]


@pytest.fixture(scope="module", autouse=True)
def fast():
    with quick_compilation():
        yield


def anisotropic(state):
    """Round Gaussians have no gradient in rotation, only rounding errors of it."""
    gaussians = state.params["gaussians"]
    stretch = jnp.array([[0.6, 0.0, -0.6]])
    return replace(
        state, params={"gaussians": gaussians | {"scales": gaussians["scales"] + stretch}}
    )


def result_on(devices, mesh, shard, absolute=False):
    """Metrics of two updates with refinement between them, and an image before them."""
    densify = DensifyConfig(
        "default", start=0, stop=50, every=1, reset_every=30, gradient=5e-5, absolute=absolute
    )
    task = small_task(
        batch_size=8,
        mesh=mesh,
        shard_gaussians=shard,
        densify=densify,
        losses=losses(opacity=0.01, scale=0.01, random_background=True),
        capacity=512,
    )
    program = make_program(task, devices)
    with jax.set_mesh(program.layout.mesh):
        state = anisotropic(program.initial_state())
        image = task.view_renderer(state)(2)
        state, read = program.step(state, batches(program, range(1)))
        first = read()[0]
        statistics = jax.device_get(state.model_state.gradients.mean())
        moments = jax.device_get(state.opt_state.mu["gaussians"])
        state, ledger = program.refresh(state)
        state, read = program.step(state, batches(program, range(1, 2)))
        return first, statistics, moments, ledger, read()[0], image


@pytest.fixture(scope="module")
def one_device():
    return result_on(1, MeshConfig(data=1), False)


@pytest.mark.parametrize(("mesh", "shard"), LAYOUTS)
def test_updates_and_refinements_are_those_of_one_device(one_device, mesh, shard):
    first, statistics, moments, ledger, second, image = result_on(8, mesh, shard)
    expected = one_device
    for key in ("loss", "loss/l1", "loss/ssim", "grad_norm", "visible", "pairs"):
        np.testing.assert_allclose(first[key], expected[0][key], rtol=1e-5, err_msg=key)
    # Adam turns rounding of gradients that are nearly zero into full steps, so later is looser.
    np.testing.assert_allclose(second["loss"], expected[4]["loss"], rtol=1e-4)
    np.testing.assert_allclose(image, expected[5], atol=1e-5)
    np.testing.assert_allclose(statistics, expected[1], rtol=1e-4, atol=1e-8)
    for leaf, gradient in moments.items():
        scale = np.abs(expected[2][leaf]).max() + 1e-12
        np.testing.assert_allclose(gradient / scale, expected[2][leaf] / scale, atol=1e-5)
    assert ledger == pytest.approx(expected[3], rel=1e-4)
    assert ledger["densify/cloned"] + ledger["densify/split"] > 0


def test_projecting_and_compositing_apart_equals_rendering(new_key):
    task = small_task(render=RenderConfig(pair_capacity=4096, antialiased=True))
    settings = replace(task.settings, render_depth=True)
    params, model_state = task.init(new_key())
    gaussians = params["gaussians"]
    gaussians["shN"] = 0.1 * jax.random.normal(new_key(), gaussians["shN"].shape)
    scene = small_scene()
    cameras = {"world_to_camera": scene.world_to_camera, "intrinsics": scene.intrinsics}
    camera = camera_of(cameras, jnp.int32(3))
    background = jnp.array([0.2, 0.4, 0.6])
    screen = project_shard(gaussians, model_state.alive, camera, settings, jnp.int32(1))
    image, depth, pairs = composite_screen(screen, background, settings, {})
    expected = render(
        gaussians | {"alive": model_state.alive},
        camera,
        settings,
        background=background,
        active_degree=1,
    )
    np.testing.assert_allclose(image, expected.image, atol=1e-6)
    np.testing.assert_allclose(depth, expected.depth, atol=1e-5)
    assert int(pairs.pairs_needed) == int(expected.pairs_needed)
