"""A small synthetic scene and configs for it, for tests."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace

import jax
import numpy as np

from splats import evaluation
from splats.config import Config, DensifyConfig, LossConfig, ModelConfig, RenderConfig
from splats.data.scene import Scene, load_scene
from splats.data.scene_access import Photographs, SceneAccess
from splats.evaluation import RenderView
from splats.gaussians.refinement import drawable
from splats.gaussians.sizes import Sizes
from splats.synthetic import SyntheticConfig, write_scene
from splats.task import SplatTask
from training.config import Duration, MeshConfig
from training.mesh import Layout, make_mesh
from training.program import Program

POINTS, WIDTH, HEIGHT, VIEWS = 250, 48, 32, 16


@functools.cache
def small_scene() -> Scene:
    with tempfile.TemporaryDirectory() as folder:
        size = SyntheticConfig(VIEWS, WIDTH, HEIGHT, POINTS, samples=1)
        return load_scene(write_scene(folder, size))


def small_config(**changes) -> Config:
    config = Config(
        system="splats",
        total=Duration(updates=60),
        mesh=MeshConfig(data=1),
        model=ModelConfig(initial_capacity=256, cap_max=1024, sh_degree=1, sh_every=20),
        densify=DensifyConfig(
            strategy="none",
            refine_start_iter=10,
            refine_stop_iter=50,
            refine_every=10,
            reset_every=30,
        ),
        render=RenderConfig(pair_capacity=4096),
    )
    return replace(config, **changes)


def small_task(capacity: int = 256, **changes) -> SplatTask:
    config = small_config(**changes)
    return task_of(config, small_scene(), capacity)


def task_of(
    config: Config, scene: Scene, capacity: int = 256, kind: type[SplatTask] = SplatTask
) -> SplatTask:
    """The task of a scene that is loaded already."""
    world = SceneAccess(Photographs(config.scene, scene))
    return kind(config, world, Sizes(capacity, config.render.pair_capacity))


@functools.cache
def shared_program(strategy: str) -> Program:
    """One compiled program per strategy for all tests that need nothing else."""
    densify = DensifyConfig(
        strategy,
        refine_start_iter=2,
        refine_stop_iter=50,
        refine_every=5,
        reset_every=10,
        grow_grad2d=1e-5,
    )
    task = small_task(512, densify=densify, losses=losses(opacity=0.01, scale=0.01))
    return make_program(task)


def make_program(task: SplatTask, devices: int = 1) -> Program:
    layout = Layout(make_mesh(task.config.mesh, jax.devices()[:devices]))
    return Program(task, layout)


def batches(program: Program, steps: range):
    """`[updates, batch]` arrays of the views of some steps, always the same ones."""
    size = program.config.batch_size
    views = len(small_scene().train)
    rows = [
        program.layout.put_batch(
            {
                "view": ((step * size + np.arange(size)) * 5 % views).astype(np.int32),
                "position": (step * size + np.arange(size)).astype(np.uint32),
            },
            size,
        )
        for step in steps
    ]
    return jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *rows)


def view_renderer(task: SplatTask, state) -> RenderView:
    """A function from a view of the task's scene to its rendering, float32 [H, W, 3]."""
    names = ("world_to_camera", "intrinsics")
    cameras = {name: getattr(task.facts, name) for name in names}
    degree = task.active_degree(state.applied)
    return evaluation.view_renderer(cameras, drawable(state), task.settings, degree)


def one_batch(program: Program):
    """`[batch]` arrays of the views of step 0."""
    return jax.tree.map(lambda leaf: leaf[0], batches(program, range(1)))


def losses(**changes) -> LossConfig:
    return replace(LossConfig(), **changes)
