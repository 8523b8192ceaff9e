"""Which query answers for which object: the assignment of least total cost, on the device.

Shortest augmenting paths (Crouse 2016, "On implementing 2D rectangular assignment algorithms").
Objects are placed one after the other; each looks for the cheapest chain of queries that hands on
their objects and ends in a free one. Only as many rows are placed as an image has objects, so
that no made-up cost of padding takes part. Vocabulary: *price* of a query, the dual variable that
makes the queries already taken as attractive as their cost says; *reduced cost* of a pair, its
cost over that of the pair that the object has, minus the price.

The dual variables of the objects are not stored: that of a placed object is the cost minus the
price of its query, and that of the object being placed only shifts its path lengths.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from training.errors import ConfigError

FREE = -1
DATA_AXES = ("data", "fsdp")


def assign(cost: jax.Array, count: jax.Array, *, batched: bool | None = None) -> jax.Array:
    """The object of each query in the assignment of least total cost.

    Args:
      cost: `[S, B, M, Q]` fp32, finite; rows at and after `count` are not read.
      count: `[B]` int32, number of objects of each image.
      batched: solve all problems in lockstep, or one after the other; None asks the platform.

    Returns:
      `[S, B, Q]` int32, row of `cost`, or `FREE`.

    Raises:
      ConfigError: there may be more objects than queries.
    """
    objects, queries = cost.shape[-2:]
    if objects > queries:
        raise ConfigError(
            f"{objects} objects of an image cannot be matched by {queries} queries, of which each "
            "answers for one; raise config.model.decoder.queries or lower config.data.max_objects"
        )
    solve = functools.partial(_solve_all, batched=batched)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not set(DATA_AXES) <= set(mesh.axis_names):
        return solve(cost, count)
    if cost.shape[1] % (mesh.shape["data"] * mesh.shape["fsdp"]):
        return solve(cost, count)
    # Each device solves its own images: loops over all of them would wait for each other.
    images = PartitionSpec(None, DATA_AXES)
    inside = (images, PartitionSpec(DATA_AXES))
    return jax.shard_map(solve, in_specs=inside, out_specs=images, check_vma=False)(cost, count)


def query_of_object(assigned: jax.Array, objects: int) -> jax.Array:
    """The inverse: `[..., Q]` objects of queries as `[..., M]` queries of objects, or `FREE`."""
    pairs = assigned[..., None, :] == jnp.arange(objects)[:, None].reshape(
        (1,) * (assigned.ndim - 1) + (objects, 1)
    )
    return jnp.where(jnp.any(pairs, axis=-1), jnp.argmax(pairs, axis=-1), FREE).astype(jnp.int32)


def _solve_all(cost: jax.Array, count: jax.Array, batched: bool | None) -> jax.Array:
    sets, images, objects, queries = cost.shape
    problems = cost.reshape(sets * images, objects, queries)
    counts = jnp.tile(count, sets)

    def in_lockstep(problems, counts):
        return jax.vmap(lambda cost, count: _solve(lambda row: cost[row], count, queries))(
            problems, counts
        )

    def in_turn(problems, counts):
        # Rows are read where they lie: a slice of each problem would copy all of its padding.
        def one(number):
            return _solve(lambda row: problems[number, row], counts[number], queries)

        return jax.lax.map(one, jnp.arange(sets * images))

    if batched is None:
        # A CPU gains nothing from lockstep, in which all wait for the longest path of each round.
        solved = jax.lax.platform_dependent(problems, counts, cpu=in_turn, default=in_lockstep)
    else:
        solved = (in_lockstep if batched else in_turn)(problems, counts)
    return solved.reshape(sets, images, queries)


def _solve(cost_of: Callable[[jax.Array], jax.Array], count: jax.Array, queries: int) -> jax.Array:
    """One problem; `cost_of` gives the costs `[Q]` of an object."""

    def row_of(number):
        # Only differences inside of a row matter; small numbers keep those of large ones exact.
        row = cost_of(number)
        return row - jnp.min(row)

    def place(number, state):
        prices, owner = state
        end, previous, lengths, visited = _shortest_path(row_of, prices, owner, number)
        # Visited queries become dearer by what the new path saves on them.
        prices = prices - jnp.where(visited, lengths[end] - lengths, 0.0)
        return prices, _handed_on(owner, previous, end, number)

    start = jnp.zeros(queries, jnp.float32), jnp.full(queries, FREE, jnp.int32)
    return jax.lax.fori_loop(0, count, place, start)[1]


def _shortest_path(row_of, prices, owner, number):
    """Dijkstra's search from an object to a free query.

    Returns:
      The free query; for each query the one before it on its path (`FREE`: the object itself), the
      length of that path, and whether it was visited.
    """
    queries = len(prices)
    columns = jnp.arange(queries)

    def step(state):
        at, length, lengths, previous, visited, _ = state
        # The pair that an object has is reduced to zero, so that staying costs nothing.
        row = row_of(jnp.where(at == FREE, number, owner[at]))
        held = jnp.where(at == FREE, 0.0, row[at] - prices[at])
        through = length + (row - prices - held)
        shorter = ~visited & (through < lengths)
        lengths = jnp.where(shorter, through, lengths)
        previous = jnp.where(shorter, at, previous)
        candidates = jnp.where(visited, jnp.inf, lengths)
        nearest = jnp.argmin(candidates).astype(jnp.int32)
        visited = visited | (columns == nearest)
        return nearest, lengths[nearest], lengths, previous, visited, owner[nearest] == FREE

    start = (
        jnp.asarray(FREE, jnp.int32),
        jnp.zeros((), jnp.float32),
        jnp.full(queries, jnp.inf, jnp.float32),
        jnp.full(queries, FREE, jnp.int32),
        jnp.zeros(queries, bool),
        jnp.asarray(False),
    )
    end, _, lengths, previous, visited, _ = jax.lax.while_loop(lambda s: ~s[-1], step, start)
    return end, previous, lengths, visited


def _handed_on(owner, previous, end, row):
    """Owners after every query of the path takes over the object of the one before it."""

    def step(state):
        at, owner = state
        before = previous[at]
        given = jnp.where(before == FREE, row, owner[before])
        return before, owner.at[at].set(given)

    return jax.lax.while_loop(lambda state: state[0] != FREE, step, (end, owner))[1]
