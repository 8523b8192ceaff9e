"""The slots that hold Gaussians: which are taken, and how rows move between them.

Arrays have a static number of slots N, so that a scene can change its number of Gaussians without
a new compilation. A *free* slot holds finite values that nothing reads; a *birth* copies a parent
row to a free slot.

Free slots are filled from the first on or, where the slots lie sharded over devices, in *dealt
order*: the order of the base-2 radical inverse (van der Corput 1935), in which every run of slots,
and with it every shard of any number of equal shards, gets its share of any first k slots.

Vocabulary: mu, nu the first and second Adam moments; N slots; rank k the position of a slot among
those of its kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

Gaussians = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Population:
    """What a refinement rewrites together.

    Attributes:
      gaussians: means [N, 3], scales [N, 3] (log), quats [N, 4] (wxyz), opacities [N] (logit),
        sh0 [N, 1, 3], shN [N, B - 1, 3] for B harmonics (absent where B is 1); float32.
      mu: first Adam moments, structured like `gaussians`.
      nu: second Adam moments.
      alive: bool [N].
    """

    gaussians: Gaussians
    mu: Gaussians
    nu: Gaussians
    alive: jax.Array

    @property
    def capacity(self) -> int:
        return self.alive.shape[0]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Births:
    """Which free slots are filled, and from where.

    Attributes:
      parent: int32 [N], the row copied into the slot; meaningful where `born`.
      born: bool [N], free slots that are filled.
      accepted: bool [N], parents whose birth found a slot.
      dropped: int32 scalar, births that found none.
    """

    parent: jax.Array
    born: jax.Array
    accepted: jax.Array
    dropped: jax.Array


def expand_like(mask: jax.Array, leaf: jax.Array) -> jax.Array:
    """`mask` [N] with trailing axes of size 1, so that it selects rows of `leaf` [N, ...]."""
    return mask.reshape(mask.shape + (1,) * (leaf.ndim - mask.ndim))


def dealt_order(slots: int) -> jax.Array:
    """int32 [slots]: all slots, sorted by the reversed bits of their numbers.

    The first k of them hold k / G slots of each of G equal shards, up to log2(slots). The order
    does not depend on G, so that a run is the same on any mesh.
    """
    bits = max(slots - 1, 1).bit_length()
    number = jnp.arange(slots, dtype=jnp.uint32)
    inverse = jnp.zeros_like(number)
    for bit in range(bits):
        inverse |= ((number >> bit) & 1) << (bits - 1 - bit)
    return jnp.argsort(inverse).astype(jnp.int32)


def dealt_rows(alive: jax.Array) -> jax.Array:
    """int32 [N]: the row that each slot takes over when all rows are dealt, living ones first."""
    living_first = jnp.argsort(~alive, stable=True).astype(jnp.int32)
    return jnp.zeros_like(living_first).at[dealt_order(alive.shape[0])].set(living_first)


def rank_within(mask: jax.Array, dealt: bool = False) -> jax.Array:
    """int32 [N]: how many slots of `mask` come before each slot, by index or in dealt order."""
    if dealt:
        order = dealt_order(mask.shape[0])
        return jnp.zeros_like(order).at[order].set(rank_within(mask[order]))
    return jnp.cumsum(mask.astype(jnp.int32)) - mask.astype(jnp.int32)


def assign_births(
    wanted: jax.Array, priority: jax.Array, free: jax.Array, dealt: bool = False
) -> Births:
    """Gives each wanted birth a free slot, highest priority first (ties: lowest index).

    Args:
      wanted: bool [N], parents that ask for one birth each.
      priority: float32 [N].
      free: bool [N], slots that may be filled; disjoint from `wanted`.
      dealt: fill free slots in dealt order.
    """
    # order[k] is the parent of the k-th birth, and the k-th free slot takes it; rows that want none
    # come last.
    order = jnp.argsort(jnp.where(wanted, -priority, jnp.inf), stable=True).astype(jnp.int32)
    position = jnp.zeros_like(order).at[order].set(jnp.arange(order.shape[0], dtype=jnp.int32))
    free_rank = rank_within(free, dealt)
    births = jnp.minimum(jnp.sum(wanted), jnp.sum(free)).astype(jnp.int32)
    return Births(
        parent=order[free_rank],
        born=free & (free_rank < births),
        accepted=wanted & (position < births),
        dropped=jnp.sum(wanted).astype(jnp.int32) - births,
    )


def copy_rows(leaves: Gaussians, source: jax.Array, destination: jax.Array) -> Gaussians:
    """Rows of `destination` (bool [N]) become copies of rows `source` (int32 [N])."""

    def copied(leaf: jax.Array) -> jax.Array:
        return jnp.where(expand_like(destination, leaf), leaf[source], leaf)

    return jax.tree.map(copied, leaves)


def update_rows(params: dict[str, Any], rows: jax.Array) -> dict[str, jax.Array]:
    """Which rows an update may change: of the Gaussians `rows` (bool [N]), of all else every one.

    Adam moves a row whose gradient is zero as long as its moments last, so that free slots would
    drift if they were not left out.
    """
    others = {n: jnp.ones(leaf.shape[0], bool) for n, leaf in params.items() if n != "gaussians"}
    return others | {"gaussians": rows}


def clear_moments(population: Population, rows: jax.Array) -> Population:
    """Adam moments set to zero in `rows` (bool [N])."""

    def cleared(leaf: jax.Array) -> jax.Array:
        return jnp.where(expand_like(rows, leaf), 0.0, leaf)

    return replace(
        population,
        mu=jax.tree.map(cleared, population.mu),
        nu=jax.tree.map(cleared, population.nu),
    )


def resize_rows(leaf: jax.Array, capacity: int) -> jax.Array:
    """`leaf` [N, ...] with `capacity` >= N rows; new rows are zero, or False."""
    return jnp.pad(leaf, [(0, capacity - leaf.shape[0])] + [(0, 0)] * (leaf.ndim - 1))


def in_slots(gaussians: Gaussians, capacity: int) -> Gaussians:
    """Gaussians in the first of `capacity` slots; the slots behind them hold neutral values.

    Nothing reads a free slot, but everything computes with it: quaternions are the identity
    (their norm is divided by), all else is zero, so that no NaN arises that a mask cannot undo.
    """
    count = gaussians["quats"].shape[0]
    slots = {name: resize_rows(leaf, capacity) for name, leaf in gaussians.items()}
    slots["quats"] = slots["quats"].at[count:, 0].set(1.0)
    return slots


def pad_population(population: Population, capacity: int) -> Population:
    """The same Gaussians in more slots; the new slots are free."""

    def padded(leaves: Gaussians) -> Gaussians:
        return jax.tree.map(lambda leaf: resize_rows(leaf, capacity), leaves)

    return Population(
        in_slots(population.gaussians, capacity),
        padded(population.mu),
        padded(population.nu),
        resize_rows(population.alive, capacity),
    )


def update_gaussians(
    population: Population, rows: jax.Array, **changes: Callable[[jax.Array], jax.Array]
) -> Population:
    """Replaces named leaves by a function of themselves, in `rows` only."""
    gaussians = dict(population.gaussians)
    for name, change in changes.items():
        leaf = gaussians[name]
        gaussians[name] = jnp.where(expand_like(rows, leaf), change(leaf), leaf)
    return replace(population, gaussians=gaussians)
