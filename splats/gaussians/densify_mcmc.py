"""Densification as sampling: relocation of dead Gaussians, growth, and noise on the means.

Kheradmand et al., "3D Gaussian Splatting as Markov Chain Monte Carlo" (2024). A draw that lands on
a Gaussian of opacity o for the n-th time replaces it by n copies whose composition looks like the
original: opacity o' with (1 - o')^n = 1 - o (their equation 9, section 3.3), and scales multiplied
by o / D(o', n), where D(o', n) is the central line integral of the n stacked copies.

All functions are pure and keep the number of slots.
"""

from __future__ import annotations

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from splats.gaussians.population import (
    Gaussians,
    Population,
    clear_moments,
    copy_rows,
    rank_within,
    update_gaussians,
)
from splats.render.projection import rotation_matrices

MAX_COPIES = 51  # beyond it the alternating sum below is not accurate in float32
DRAW_BLOCK = 1024  # entries per block of the two-level cumulative sum


def _binomial_table() -> np.ndarray:
    """[n, k] -> C(n, k + 1) (-1)^k / sqrt(k + 1), for n in 0..51 and k in 0..50."""
    table = np.zeros((MAX_COPIES + 1, MAX_COPIES))
    for n in range(MAX_COPIES + 1):
        for k in range(n):
            table[n, k] = math.comb(n, k + 1) * (-1) ** k / math.sqrt(k + 1)
    return table.astype(np.float32)


BINOMIAL_TABLE = _binomial_table()


def stacked_integral(opacity: jax.Array, copies: jax.Array) -> jax.Array:
    """D(o', n): the integral along the center line of n stacked copies, in units of one's.

    D(o', n) = sum_{i=1..n} sum_{k=0..i-1} C(i-1, k) (-1)^k o'^(k+1) / sqrt(k+1); the inner and
    outer sums collapse by the hockey-stick identity to one sum over C(n, k+1), accumulated here
    from a table.

    Args:
      opacity: o' float32 [N] in (0, 1).
      copies: n int32 [N] in 1..51.
    """

    def add_term(k: jax.Array, carry: tuple[jax.Array, jax.Array]):
        total, power = carry
        power = power * opacity
        return total + jnp.asarray(BINOMIAL_TABLE)[copies, k] * power, power

    start = jnp.zeros_like(opacity), jnp.ones_like(opacity)
    return jax.lax.fori_loop(0, MAX_COPIES, add_term, start)[0]


def divide_among_copies(
    opacity: jax.Array, scale: jax.Array, copies: jax.Array, min_opacity: float
) -> tuple[jax.Array, jax.Array]:
    """Opacity and scale of each of n copies that together replace one Gaussian.

    Args:
      opacity: float32 [N] in (0, 1).
      scale: float32 [N, 3], linear.
      copies: int32 [N], number of Gaussians afterwards; clamped to 1..51.
    """
    copies = jnp.clip(copies, 1, MAX_COPIES)
    # 1 - (1 - o)^(1/n), without the cancellation that small opacities would suffer.
    new_opacity = -jnp.expm1(jnp.log1p(-opacity) / copies)
    # Source: gsplat's and the authors' CUDA code evaluate D at o' before clamping.
    shrink = opacity / stacked_integral(new_opacity, copies)
    largest = 1.0 - float(jnp.finfo(jnp.float32).eps)  # the logit of 1 is infinite
    return jnp.clip(new_opacity, min_opacity, largest), scale * shrink[:, None]


def draw_rows(weights: jax.Array, count: int, key: jax.Array) -> jax.Array:
    """`count` independent row indices, each with probability proportional to its weight.

    A float32 running sum over millions of entries cannot resolve single ones. The draw picks a
    block of 1,024 rows first, then a row in it, each with its own uniform number. The sums are
    sequential: a tree-shaped cumsum may round up at a row of weight zero, which could be drawn.

    Args:
      weights: float32 [N], not negative, not all zero.

    Returns:
      int32 [count]; a row with zero weight is never drawn.
    """
    rows = weights.shape[0]
    blocks = -(-rows // DRAW_BLOCK)
    padded = jnp.pad(weights, (0, blocks * DRAW_BLOCK - rows)).reshape(blocks, DRAW_BLOCK)
    within = _running_sum(padded)
    across = _running_sum(within[:, -1][None, :])[0]
    block_key, row_key = jax.random.split(key)
    block_target = jax.random.uniform(block_key, (count,)) * across[-1]
    block = _first_above(across[None, :], jnp.zeros(count, jnp.int32), block_target)
    row_target = jax.random.uniform(row_key, (count,)) * within[block, -1]
    return block * DRAW_BLOCK + _first_above(within, block, row_target)


def _running_sum(values: jax.Array) -> jax.Array:
    """Sequential cumulative sum along the last of two axes; exactly flat where values are 0."""

    def add(total: jax.Array, column: jax.Array) -> tuple[jax.Array, jax.Array]:
        return total + column, total + column

    _, sums = jax.lax.scan(add, jnp.zeros(values.shape[0], values.dtype), values.T)
    return sums.T


def _first_above(sums: jax.Array, table: jax.Array, target: jax.Array) -> jax.Array:
    """Per entry: first position in the non-decreasing row `sums[table]` whose value > target.

    Where rounding put the target at or above the last value, the first position of that value.
    """
    last = sums[table, -1]
    target = jnp.minimum(target, jnp.nextafter(last, jnp.zeros_like(last)))
    length = sums.shape[1]

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) // 2
        above = sums[table, jnp.minimum(middle, length - 1)] > target
        return jnp.where(above, low, middle + 1), jnp.where(above, middle, high)

    start = jnp.zeros_like(table), jnp.full_like(table, length - 1)
    return jax.lax.fori_loop(0, length.bit_length(), halve, start)[0]


def _fill_from_sources(
    population: Population, slots: jax.Array, sources_ok: jax.Array, min_opacity: float, key
) -> Population:
    """Fills `slots` (bool [N]) with copies of drawn sources, and shrinks the sources alike."""
    opacity = jax.nn.sigmoid(population.gaussians["opacities"])
    source = draw_rows(jnp.where(sources_ok, opacity, 0.0), population.capacity, key)
    # One draw per slot, filled or not, keeps shapes static; only those of `slots` are counted.
    drawn = jnp.zeros(population.capacity, jnp.int32).at[source].add(slots.astype(jnp.int32))
    new_opacity, new_scale = divide_among_copies(
        opacity, jnp.exp(population.gaussians["scales"]), drawn + 1, min_opacity
    )
    population = update_gaussians(
        population,
        drawn > 0,
        opacities=lambda _: jax.scipy.special.logit(new_opacity),
        scales=lambda _: jnp.log(new_scale),
    )
    copies = replace(
        population,
        gaussians=copy_rows(population.gaussians, source, slots),
        alive=population.alive | slots,
    )
    # The sources too: their opacity and size jumped, and old moments would pull them back.
    return clear_moments(copies, slots | (drawn > 0))


def relocate(
    population: Population, key: jax.Array, min_opacity: float = 0.005
) -> tuple[Population, jax.Array]:
    """Moves Gaussians whose opacity has died onto living ones, drawn by opacity.

    Returns:
      The population, and the int32 number moved (0 where no living Gaussian is left to copy).
    """
    opacity = jax.nn.sigmoid(population.gaussians["opacities"])
    dead = population.alive & (opacity <= min_opacity)
    sources_ok = population.alive & ~dead
    dead = dead & jnp.any(sources_ok)
    moved = _fill_from_sources(population, dead, sources_ok, min_opacity, key)
    return moved, jnp.sum(dead).astype(jnp.int32)


def grow(
    population: Population,
    key: jax.Array,
    cap: int,
    factor: float = 1.05,
    min_opacity: float = 0.005,
    dealt: bool = False,
) -> tuple[Population, jax.Array]:
    """Adds Gaussians until there are min(cap, floor(factor * alive)), drawn like relocations.

    Args:
      cap: largest number of Gaussians.
      factor: growth.
      min_opacity: of a copy.
      dealt: fill free slots in dealt order.

    Returns:
      The population, and the int32 number added (limited by the free slots).
    """
    alive = jnp.sum(population.alive)
    # (factor - 1) * alive is exact enough in float32 where factor * alive is not (above 2^24).
    extra = jnp.floor((factor - 1.0) * alive.astype(jnp.float32) + 1e-3).astype(jnp.int32)
    wanted = jnp.clip(jnp.minimum(alive + extra, cap) - alive, 0)
    free = ~population.alive
    slots = free & (rank_within(free, dealt) < wanted)
    grown = _fill_from_sources(population, slots, population.alive, min_opacity, key)
    return grown, jnp.sum(slots).astype(jnp.int32)


def add_noise(
    gaussians: Gaussians,
    rows: jax.Array,
    learning_rate: jax.Array,
    key: jax.Array,
    scale: float = 5e5,
    min_opacity: float = 0.005,
) -> jax.Array:
    """New means [N, 3] with exploration noise Sigma (n * gate(o) * scale * learning_rate).

    The gate sigmoid(-100 (o - min_opacity)) leaves opaque Gaussians where they are.

    Args:
      rows: bool [N], rows that move.
      learning_rate: of the means, now, including the scene scale.
    """
    opacity = jax.nn.sigmoid(gaussians["opacities"])
    gate = jax.nn.sigmoid(-100.0 * (opacity - min_opacity))
    normal = jax.random.normal(key, gaussians["means"].shape)
    step = normal * (jnp.where(rows, gate, 0.0) * scale * learning_rate)[:, None]
    rotation = rotation_matrices(gaussians["quats"])
    # Sigma = R diag(s^2) R^T applied from the right to the left, so that no matrix is formed.
    along_axes = jnp.einsum("nij,ni->nj", rotation, step, precision="highest")
    stretched = along_axes * jnp.exp(2.0 * gaussians["scales"])
    return gaussians["means"] + jnp.einsum("nij,nj->ni", rotation, stretched, precision="highest")
