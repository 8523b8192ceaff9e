"""Evaluation of views: the same scores on any number of devices and with any room for pairs."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from splats.data.background import BLACK
from splats.evaluation import RenderViews
from splats.losses.photometric import psnr
from tests.splats.scenes import make_program, small_config, small_scene, small_task, view_renderer
from training.config import MeshConfig
from training.mesh import Layout, make_mesh

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def state():
    """A state on the host, for any mesh."""
    program = make_program(small_task())
    with jax.set_mesh(program.layout.mesh):
        state = program.initial_state()
        return jax.device_get(replace(state, key=jax.random.key_data(state.key)))


def evaluate(state, devices=1, task=None, **axes):
    task = task or small_task()
    layout = Layout(make_mesh(MeshConfig(**axes), jax.devices()[:devices]))
    with jax.set_mesh(layout.mesh):
        placed = jax.device_put(state, layout.replicated)
        return task.evaluate(placed, task.sources().evaluation["test"], layout)


@pytest.fixture(scope="module")
def reference(state):
    return evaluate(state)


def assert_same(found, expected):
    assert found.metrics.keys() == expected.metrics.keys()
    for name, value in expected.metrics.items():
        # The sums of an image are made in another order.
        assert found.metrics[name] == pytest.approx(value, rel=1e-5), name
    assert list(found.images) == list(expected.images)
    for name, picture in expected.images.items():
        assert np.abs(picture.astype(int) - found.images[name].astype(int)).max() <= 1


def test_scores_are_those_of_views_rendered_one_by_one(state, reference):
    task, scene = small_task(), small_scene()
    render_view = view_renderer(task, state)

    def mean(views):
        pairs = [(jnp.asarray(render_view(v)), jnp.asarray(scene.view_on(v, BLACK))) for v in views]
        return np.mean([float(psnr(*pair)) for pair in pairs])

    assert reference.metrics["psnr"] == pytest.approx(mean(scene.test.tolist()), rel=1e-6)
    assert reference.metrics["views"] == len(scene.test) == 2
    assert reference.metrics["pixels"] == 2 * 48 * 32
    shown = scene.train[[0, len(scene.train) - 1]].tolist()
    assert reference.metrics["train_psnr"] == pytest.approx(mean(shown), rel=1e-6)


@pytest.mark.parametrize("axes", [{"data": 8}, {"data": 2, "fsdp": 2, "model": 2}])
def test_views_spread_over_devices_score_as_on_one(state, reference, axes):
    """Four views on eight or four devices: some render only what fills up the batch."""
    assert_same(evaluate(state, 8, **axes), reference)


def test_a_view_that_needs_more_pairs_gets_them(state, reference):
    few = small_task(render=replace(small_config().render, pair_capacity=64))
    assert_same(evaluate(state, task=few), reference)


def test_a_device_renders_its_own_views_only(state):
    task = small_task()
    layout = Layout(make_mesh(MeshConfig(), jax.devices()[:4]))
    gaussians = state.params["gaussians"] | {"alive": state.model_state.alive}
    scene = small_scene()
    cameras = {"world_to_camera": scene.world_to_camera[:4], "intrinsics": scene.intrinsics[:4]}
    with jax.set_mesh(layout.mesh):
        arguments = layout.replicate((gaussians, np.int32(0)))
        batch = layout.put_batch(cameras, 4)
        image = jax.jit(RenderViews(task.settings))(*arguments, batch).local
    assert [shard.data.shape for shard in image.addressable_shards] == [(1, 32, 48, 3)] * 4
