"""By what grids are standardized: their mean over training grasps, and the deviations from it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hand_object.prior.config import Config
from hand_object.prior.diffusion import grids_of
from hand_object.prior.source import training_grasps

GRASPS = 256  # the first ones of training
LEAST_DEVIATION = 1e-3  # of a channel that hardly varies


def grid_statistics(config: Config) -> dict[str, jax.Array]:
    """`mean` [D, H, W, 21] and `deviation` [21], of all voxels of a channel together."""
    source = training_grasps(config)
    examples = [source.load(0, position) for position in range(GRASPS)]
    joints = jnp.array([example["joints"] for example in examples])
    distances = jnp.array([example["distances"] for example in examples])
    grids = grids_of(joints, distances, config.grid)
    mean = jnp.mean(grids, axis=0)
    spread = jnp.sqrt(jnp.mean(jnp.square(grids - mean[None]), axis=(0, 1, 2, 3)))
    return {"mean": mean, "deviation": jnp.maximum(spread, LEAST_DEVIATION)}
