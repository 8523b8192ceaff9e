"""The Gaussians that a run starts from.

Isotropic, sized by the distance to the three nearest points (Kerbl et al. 2023, section 5.1), with
random orientations (gsplat), in the first slots of the population or in dealt ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from splats.config import ModelConfig
from splats.data.scene import Scene
from splats.data.starting_geometry import neighbor_distances, random_blender_points, random_points
from splats.gaussians.harmonic_basis import rgb_to_constant
from splats.gaussians.population import Gaussians, dealt_rows, in_slots
from training.errors import ConfigError


@dataclass(frozen=True, eq=False)
class StartingPoints:
    """Numpy arrays: positions [P, 3], colors [P, 3] in [0, 1], sizes [P], all float32."""

    positions: np.ndarray
    colors: np.ndarray
    sizes: np.ndarray


NO_POINTS = StartingPoints(
    np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), np.zeros(0, np.float32)
)


def starting_points(scene: Scene, config: ModelConfig, scale: float, seed: int) -> StartingPoints:
    """The reconstruction's points, or random ones.

    Raises:
      ConfigError: a scene without points, or with more than the capacity.
    """
    if config.initialization == "points":
        positions, colors = scene.points, scene.point_colors
        if len(positions) < 4:
            raise ConfigError(
                f"the scene has {len(positions)} reconstructed points; set "
                "config.model.initialization = random"
            )
    else:
        generator = np.random.default_rng(seed)
        if scene.kind == "blender":
            positions, colors = random_blender_points(
                config.random_points, scene.normalization, generator
            )
        else:
            positions, colors = random_points(config.random_points, scale, generator)
    if len(positions) > config.cap_max:
        raise ConfigError(
            f"the scene starts with {len(positions)} points, more than config.model.cap_max = "
            f"{config.cap_max}; raise the capacity"
        )
    return StartingPoints(
        positions.astype(np.float32),
        colors.astype(np.float32) / 255.0,
        neighbor_distances(positions),
    )


def initial_gaussians(
    points: StartingPoints,
    capacity: int,
    config: ModelConfig,
    key: jax.Array,
    dealt: bool = False,
) -> tuple[Gaussians, jax.Array]:
    """Gaussians of `capacity` slots and which of them are alive; traceable.

    Args:
      dealt: the points are dealt over the slots, see `splats.gaussians.population`.
    """
    count = len(points.sizes)
    bands = (config.sh_degree + 1) ** 2 - 1
    log_size = jnp.log(jnp.asarray(points.sizes) * config.init_scale)
    rows = {
        "means": jnp.asarray(points.positions),
        "scales": jnp.broadcast_to(log_size[:, None], (count, 3)),
        "quats": jax.random.normal(key, (count, 4)),  # uniform over rotations once normalized
        "opacities": jnp.full(count, jax.scipy.special.logit(config.init_opacity)),
        "sh0": rgb_to_constant(jnp.asarray(points.colors))[:, None, :],
    }
    if bands:
        rows["shN"] = jnp.zeros((count, bands, 3))
    rows = {name: leaf.astype(jnp.float32) for name, leaf in rows.items()}
    gaussians = in_slots(rows, capacity)
    alive = jnp.arange(capacity) < count
    if not dealt:
        return gaussians, alive
    slots = dealt_rows(alive)
    return {name: leaf[slots] for name, leaf in gaussians.items()}, alive[slots]
