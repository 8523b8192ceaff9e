"""Making grids noisy, and the noise that follows from what the network guesses.

Letters: B batch, D, H, W voxels, C channels; a = share of the signal.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from hand_object.prior.grid import GridConfig, hand_grid, object_grid
from hand_object.prior.model.unet import Unet, UnetConfig
from hand_object.prior.schedule import signal_shares

MOST_WEIGHT = 5.0  # of a step's error in the clean grid (min-SNR, Hang et al. 2023)


def signal_of(steps: jax.Array) -> jax.Array:
    """[B] original steps -> [B, 1, 1, 1, 1] shares of the signal."""
    return jnp.asarray(signal_shares(), jnp.float32)[steps].reshape(-1, 1, 1, 1, 1)


def grids_of(joints: jax.Array, distances: jax.Array, grid: GridConfig) -> jax.Array:
    """Joints [B, 21, 3] and distances [B, D H W] in units -> [B, D, H, W, 1 + 20]."""

    def one(own_joints, own_distances):
        parts = [object_grid(own_distances, grid), hand_grid(own_joints, grid)]
        return jnp.concatenate(parts, axis=-1)

    return jax.vmap(one)(joints, distances)


def standardized(grids: jax.Array, statistics: dict[str, jax.Array]) -> jax.Array:
    """Grids [..., D, H, W, C] less their mean, in deviations, so that noise of 1 is as large.

    Most of a grid is far from every surface and hardly varies: noise of 1 would drown what does.

    Args:
      statistics: `mean` [D, H, W, C] and `deviation` [C].
    """
    extra = (1,) * (grids.ndim - 4)
    mean = statistics["mean"].reshape(*extra, *statistics["mean"].shape)
    return (grids - mean) / statistics["deviation"].reshape(*extra, 1, 1, 1, -1)


def restored(values: jax.Array, statistics: dict[str, jax.Array]) -> jax.Array:
    """The inverse of `standardized`."""
    extra = (1,) * (values.ndim - 4)
    mean = statistics["mean"].reshape(*extra, *statistics["mean"].shape)
    return values * statistics["deviation"].reshape(*extra, 1, 1, 1, -1) + mean


def noisy_grids(clean: jax.Array, noise: jax.Array, steps: jax.Array) -> jax.Array:
    signal = signal_of(steps)
    return jnp.sqrt(signal) * clean + jnp.sqrt(1.0 - signal) * noise


def guess(
    params: Any,
    config: UnetConfig,
    noisy: jax.Array,
    steps: jax.Array,
    condition: jax.Array,
    dropout: jax.Array | None = None,
) -> jax.Array:
    """What the network says, [B, D, H, W, C]: noise or clean grid, by `config.guesses`.

    Args:
      dropout: a key, in training.
    """
    network = Unet(config, train=dropout is not None)
    rngs = None if dropout is None else {"dropout": dropout}
    return jnp.asarray(network.apply({"params": params}, noisy, steps, condition, rngs=rngs))


def as_noise(guessed: jax.Array, noisy: jax.Array, steps: jax.Array, kind: str) -> jax.Array:
    """The guess of the noise, of a guess of either kind."""
    if kind == "noise":
        return guessed
    signal = signal_of(steps)
    return (noisy - jnp.sqrt(signal) * guessed) / jnp.sqrt(1.0 - signal)


def step_weight(steps: jax.Array, kind: str) -> jax.Array:
    """[B, 1, 1, 1, 1] weight of the square error at a step; 1 for guesses of the noise.

    An error of the clean grid is a / (1 - a) times as large in the noise, which at steps of almost
    no noise would leave nothing for the others.
    """
    signal = signal_of(steps)
    if kind == "noise":
        return jnp.ones_like(signal)
    return jnp.minimum(signal / (1.0 - signal), MOST_WEIGHT)
