"""A small made-up sequence and tasks on it, for tests."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from hand_object.config import (
    Config,
    EncodingConfig,
    FieldConfig,
    MetricsConfig,
    PrefitConfig,
    RaysConfig,
    SamplerConfig,
    SequenceConfig,
    preset,
    reconstruction_optimizer,
)
from hand_object.data.sequence_access import Opened, open_sequence
from hand_object.loss_config import LossConfig
from hand_object.synthetic import Scene, make_sequence
from hand_object.task import HandObjectTask, Video
from training.config import Duration, MeshConfig
from training.mesh import Layout, make_mesh
from training.program import Program

FRAMES, HOLD_OUT = 9, 4


@functools.cache
def small_opened() -> Opened:
    """Nine frames of 24 x 32 pixels: a hand turns a box."""
    with tempfile.TemporaryDirectory() as folder:
        make_sequence(Scene(frames=FRAMES, size=(24, 32), object="box"), Path(folder))
        return open_sequence(SequenceConfig(path=folder, hold_out=HOLD_OUT))


def small_fields() -> FieldConfig:
    smoke = preset("smoke")
    return replace(
        smoke,
        encoding=EncodingConfig(kind="triplane", resolution=12, channels=2),
        sampler=SamplerConfig("proposal", samples=8, probes=16, cache=12, cache_every=5),
        density=replace(smoke.density, beta=0.03),
    )


def small_config(**changes) -> Config:
    config = Config(
        system="hand_object",
        batch_size=2,
        total=Duration(updates=400),
        mesh=MeshConfig(data=1),
        sequence=SequenceConfig(hold_out=HOLD_OUT),
        model=small_fields(),
        rays=RaysConfig(per_frame=32),
        losses=LossConfig(mask=1.0, sparse=0.1, template=1.0, poses=1.0),
        prefit=PrefitConfig(updates=60, points=512, batch=256),
        metrics=MetricsConfig(resolution=16),
        optimizer=reconstruction_optimizer(
            networks=3e-3, planes=1e-2, densities=1e-2, poses=1e-4, clip_norm=None
        ),
    )
    return replace(config, **changes)


def task_of(config: Config, opened: Opened) -> HandObjectTask:
    """The task of a sequence that is read already."""
    video = Video(config.sequence)
    video.opened = opened  # takes the place of the cached property
    return HandObjectTask(config, video)


def small_task(**changes) -> HandObjectTask:
    return task_of(small_config(**changes), small_opened())


def make_program(task: HandObjectTask) -> Program:
    layout = Layout(make_mesh(task.config.mesh, jax.devices()[:1]))
    return Program(task, layout)


@functools.cache
def shared_program() -> Program:
    """One compiled program for all tests that need nothing else."""
    return make_program(small_task())


def batches(program: Program, steps: range):
    """`[updates, batch]` arrays of the frames of some steps, always the same ones."""
    size = program.config.batch_size
    source = program.task.sources().train
    rows = []
    for step in steps:
        position = step * size + np.arange(size)
        frames = [source[int(p) * 5 % len(source)]["frame"] for p in position]
        row = {"frame": np.stack(frames), "position": position.astype(np.uint32)}
        rows.append(program.layout.put_batch(row, size))
    return jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *rows)
