"""Gaussians of another trainer as the checkpoint of step 0.

Every property of the file is used or the file is refused. The harmonics of the file are in use from
the first update on; the optimizer's moments start at zero and schedules at their beginning.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from splats.formats import CleanedCloud, GaussianCloud, clean, transform
from splats.formats.inria_ply import read_inria_ply
from splats.gaussians import refinement
from splats.gaussians.population import Gaussians, in_slots
from splats.gaussians.sizes import starting_sizes
from training.checkpoint.first import write_first_checkpoint
from training.config import MeshConfig
from training.errors import ConfigError, InputError
from training.mesh import Layout, make_mesh
from training.program import Program
from training.registry import load_config, make_task
from training.task import with_config

if TYPE_CHECKING:
    from splats.config import Config
    from splats.task import SplatTask


def import_weights(args: argparse.Namespace) -> list[str]:
    """Writes the work folder; returns lines that say what was imported."""
    if args.config is None:
        raise ConfigError("a scene is imported for a recipe; give one with --config FILE.py")
    config: Config = load_config(args.config, args.overrides)  # type: ignore[assignment]
    if config.system != "splats":
        raise ConfigError(f"{args.config} is a recipe of {config.system}; give one of splats")
    cleaned = clean(read_inria_ply(args.source, strict=True))
    task: SplatTask = make_task(config)  # type: ignore[assignment]
    task = sized_task(task, cleaned.cloud, args.source)
    # One device will do: a checkpoint is restored on any mesh.
    layout = Layout(make_mesh(MeshConfig(), jax.devices()[:1]))
    alone = replace(config, mesh=MeshConfig(), accumulation=1)
    program = Program(with_config(task, alone), layout)
    with jax.set_mesh(layout.mesh):
        gaussians, alive = slots(task, cleaned.cloud, args.normalized)
        state = program.initial_state()
        state = replace(
            state,
            params=state.params | {"gaussians": gaussians},
            model_state=replace(state.model_state, alive=alive),
        )
        if config.shard_gaussians:
            state = refinement.deal(state)
        state = jax.device_put(state, program.shardings)
        write_first_checkpoint(args.workdir, program, state, config, args.overrides)
    return report(args.workdir, cleaned, task)


def report(workdir: Path, cleaned: CleanedCloud, task: SplatTask) -> list[str]:
    """Lines for the user."""
    return [
        f"{len(cleaned.cloud):,} Gaussians of degree {cleaned.cloud.degree} in "
        f"{task.sizes.capacity:,} slots written to {workdir} as step 0; left out: "
        f"{cleaned.non_finite:,} not finite",
        f"scores on the {len(task.facts.test)} held-out views mean something only if the file was "
        "trained without them",
    ]


def sized_task(task: SplatTask, cloud: GaussianCloud, source: Path) -> SplatTask:
    """The task with slots for the cloud, and its harmonics in use from the start.

    Raises:
      InputError: no Gaussians.
      ConfigError: more Gaussians or harmonics than the config allows.
    """
    model = task.config.model
    if not len(cloud):
        raise InputError(f"{source} holds no finite Gaussian; give the file of a trained scene")
    if len(cloud) > model.cap_max:
        raise ConfigError(
            f"{source} holds {len(cloud):,} Gaussians, more than config.model.cap_max = "
            f"{model.cap_max:,}; raise the capacity"
        )
    if cloud.degree > model.sh_degree:
        raise ConfigError(
            f"{source} has harmonics of degree {cloud.degree}, more than config.model.sh_degree = "
            f"{model.sh_degree}; raise it"
        )
    # Room for the scene's own points too: the state is made with them before the file's come in.
    capacity = max(task.sizes.capacity, starting_sizes(len(cloud), task.config).capacity)
    sizes = replace(task.sizes, capacity=capacity)
    return replace(task, given_sizes=sizes, first_degree=cloud.degree)


def slots(task: SplatTask, cloud: GaussianCloud, normalized: bool) -> tuple[Gaussians, jax.Array]:
    """The parameters of all slots, float32, and which are alive.

    Args:
      normalized: the cloud is in the world of training already.
    """
    if not normalized:
        cloud = transform(cloud, task.facts.normalization)
    count, capacity = len(cloud), task.sizes.capacity
    bands = (task.config.model.sh_degree + 1) ** 2
    harmonics = np.zeros((count, bands, 3), np.float32)
    harmonics[:, : cloud.harmonics.shape[1]] = cloud.harmonics
    rows = {
        "means": cloud.means,
        "scales": cloud.log_scales,
        "quats": cloud.quaternions,
        "opacities": cloud.opacity_logits,
        "sh0": harmonics[:, :1],
    }
    if bands > 1:
        rows["shN"] = harmonics[:, 1:]
    gaussians = in_slots({name: jnp.asarray(values) for name, values in rows.items()}, capacity)
    return gaussians, jnp.arange(capacity) < count
