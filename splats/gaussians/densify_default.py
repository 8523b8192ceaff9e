"""Adaptive density control: duplicate, split, prune and reset by the screen-space gradient.

Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering" (2023), section 5.2,
with gsplat's constants. With `absolute` gradients (Ye et al., "AbsGS", 2024) the statistics hold
per-pixel absolute gradients and the threshold is larger. "Revised opacity" is from Rota Bulo et
al. (2024): both children get 1 - sqrt(1 - o), so that a split does not brighten its pixels.

All functions are pure and keep the number of slots.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from splats.gaussians.population import (
    Population,
    assign_births,
    clear_moments,
    copy_rows,
    expand_like,
    update_gaussians,
)
from splats.render.projection import rotation_matrices

SPLIT_SHRINK = 1.6  # children are smaller than the parent by this factor (0.8 N for N = 2 children)


@dataclass(frozen=True)
class Thresholds:
    """When a Gaussian is refined. Lengths are fractions of the scene scale."""

    grow_grad2d: float = 2e-4  # normalized device units; 8e-4 with absolute gradients
    grow_scale3d: float = 0.01  # up to it duplicate, above it split
    prune_opa: float = 0.005
    prune_scale3d: float = 0.1
    revised_opacity: bool = False


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Refined:
    """Counts of one refinement, int32 scalars."""

    cloned: jax.Array
    split: jax.Array
    pruned: jax.Array
    dropped: jax.Array


def refine(
    population: Population,
    gradient: jax.Array,
    key: jax.Array,
    scene_scale: float,
    prune_large: jax.Array | bool,
    thresholds: Thresholds,
    dealt: bool = False,
) -> tuple[Population, Refined]:
    """Duplicates and splits where the gradient is high, then prunes the result.

    Births beyond the free slots are dropped, those of the lowest gradient first; their parents
    stay as they are.

    Args:
      gradient: float32 [N], mean screen-space gradient over the views that saw the Gaussian.
      scene_scale: world units.
      prune_large: bool scalar, whether too large Gaussians go as well.
      dealt: fill free slots in dealt order.
    """
    alive = population.alive
    largest = jnp.max(jnp.exp(population.gaussians["scales"]), axis=1)
    high = alive & (gradient > thresholds.grow_grad2d)
    small = largest <= thresholds.grow_scale3d * scene_scale
    # Clones and splits need one slot each: of a split, one child takes over the parent's.
    births = assign_births(high, gradient, ~alive, dealt)
    cloned = births.accepted & small
    split = births.accepted & ~small
    children = split | (births.born & split[births.parent])

    population = replace(
        population,
        gaussians=copy_rows(population.gaussians, births.parent, births.born),
        alive=alive | births.born,
    )
    population = _scatter_children(population, children, key, thresholds.revised_opacity)
    # A clone's original goes on as it was; both children of a split begin anew.
    population = clear_moments(population, births.born | split)
    population, pruned = prune(population, scene_scale, prune_large, thresholds)
    counts = Refined(
        cloned=jnp.sum(cloned).astype(jnp.int32),
        split=jnp.sum(split).astype(jnp.int32),
        pruned=pruned,
        dropped=births.dropped,
    )
    return population, counts


def _scatter_children(
    population: Population, children: jax.Array, key: jax.Array, revised_opacity: bool
) -> Population:
    """Places each child at a point drawn from its parent, 1.6 times smaller.

    Both children of a parent hold the parent's row here, in different slots, so one normal draw
    per slot makes them independent.
    """
    gaussians = population.gaussians
    normal = jax.random.normal(key, gaussians["means"].shape)
    offset = jnp.einsum(
        "nij,nj->ni",
        rotation_matrices(gaussians["quats"]),
        jnp.exp(gaussians["scales"]) * normal,
        precision="highest",
    )

    def revised(logits: jax.Array) -> jax.Array:
        if not revised_opacity:
            return logits
        return jax.scipy.special.logit(1.0 - jnp.sqrt(jax.nn.sigmoid(-logits)))

    return update_gaussians(
        population,
        children,
        means=lambda means: means + offset,
        scales=lambda scales: scales - jnp.log(SPLIT_SHRINK),
        opacities=revised,
    )


def prune(
    population: Population,
    scene_scale: float,
    prune_large: jax.Array | bool,
    thresholds: Thresholds,
) -> tuple[Population, jax.Array]:
    """Frees the slots of transparent and, if `prune_large`, of too large Gaussians."""
    opacity = jax.nn.sigmoid(population.gaussians["opacities"])
    largest = jnp.max(jnp.exp(population.gaussians["scales"]), axis=1)
    too_large = (largest > thresholds.prune_scale3d * scene_scale) & prune_large
    gone = population.alive & ((opacity < thresholds.prune_opa) | too_large)
    return replace(population, alive=population.alive & ~gone), jnp.sum(gone).astype(jnp.int32)


def reset_opacity(population: Population, ceiling: float = 0.01) -> Population:
    """Clamps all opacities to at most `ceiling` and forgets the moments of the opacities."""
    limit = jax.scipy.special.logit(jnp.float32(ceiling))
    clamped = update_gaussians(
        population, population.alive, opacities=lambda logits: jnp.minimum(logits, limit)
    )

    def forget(moments: dict[str, jax.Array]) -> dict[str, jax.Array]:
        leaf = moments["opacities"]
        rows = expand_like(population.alive, leaf)
        return moments | {"opacities": jnp.where(rows, 0.0, leaf)}

    return replace(clamped, mu=forget(clamped.mu), nu=forget(clamped.nu))
