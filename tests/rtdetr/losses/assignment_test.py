"""The assignment on the device costs as much as that of scipy, and never leaves the device."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from scipy.optimize import linear_sum_assignment

from rtdetr.losses.assignment import FREE, assign, query_of_object
from training.errors import ConfigError

OBJECTS, QUERIES, IMAGES = 8, 12, 60
solve = jax.jit(assign, static_argnames="batched")


def random_costs(draw, shape):
    return draw.normal(size=shape) * 10 ** draw.uniform(-2, 2, size=(*shape[:2], 1, 1))


def tied_costs(draw, shape):
    return draw.integers(0, 3, size=shape).astype(float)


def equal_costs(draw, shape):
    return np.full(shape, draw.normal())


def broken_queries(draw, shape):
    """As a cost that was no number is given: 1e4, in whole rows, columns and single places."""
    costs = draw.normal(size=shape)
    costs[..., draw.random(shape[-1]) < 0.4] = 1e4
    costs[..., draw.random(shape[-2]) < 0.3, :] = 1e4
    costs[draw.random(shape) < 0.1] = 1e4
    return costs


def same_boxes(draw, shape):
    """Many objects that want the same few queries: long augmenting paths."""
    wanted = np.linspace(0, 1, shape[-1]) ** 3
    return np.broadcast_to(wanted, shape) + 1e-3 * draw.normal(size=shape)


KINDS = (random_costs, tied_costs, equal_costs, broken_queries, same_boxes)


def excess(costs, counts, assigned):
    """By how much the cost exceeds that of scipy, over what rounding allows; checks validity."""
    worst = -np.inf
    for cost, count, owner in zip(costs, counts, assigned):
        placed = owner[owner != FREE]
        assert sorted(placed) == list(range(count)), "each object has exactly one query"
        queries = np.flatnonzero(owner != FREE)
        ours = cost[owner[queries], queries].astype(np.float64).sum()
        rows, columns = linear_sum_assignment(cost[:count])
        best = cost[rows, columns].astype(np.float64).sum()
        # Differences inside of a row are what is rounded, once for each step of a path.
        spread = np.ptp(cost[: max(count, 1)], axis=1).max()
        allowed = 4 * (count + 1) ** 2 * np.finfo(np.float32).eps * spread
        worst = max(worst, (ours - best) - allowed)
    return worst


@pytest.mark.parametrize("batched", [True, False], ids=["lockstep", "in-turn"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_total_cost_is_that_of_scipy(kind, batched):
    draw = np.random.default_rng(7)
    shape = (4, IMAGES, OBJECTS, QUERIES)  # 240 problems of each of 5 kinds
    costs = kind(draw, shape).astype(np.float32)
    counts = draw.integers(0, OBJECTS + 1, size=IMAGES).astype(np.int32)
    counts[:2] = 0, OBJECTS
    assigned = np.asarray(solve(costs, counts, batched=batched))
    for one, owners in zip(costs, assigned):
        assert excess(one, counts, owners) <= 0


@pytest.mark.parametrize("batched", [True, False], ids=["lockstep", "in-turn"])
def test_as_many_objects_as_queries_are_all_placed(batched):
    draw = np.random.default_rng(11)
    costs = random_costs(draw, (1, 30, QUERIES, QUERIES)).astype(np.float32)
    counts = np.full(30, QUERIES, np.int32)
    assert excess(costs[0], counts, np.asarray(solve(costs, counts, batched=batched))[0]) <= 0


def test_rows_of_padding_are_not_read():
    draw = np.random.default_rng(3)
    costs = random_costs(draw, (4, IMAGES, OBJECTS, QUERIES)).astype(np.float32)
    counts = draw.integers(0, OBJECTS, size=IMAGES).astype(np.int32)
    padding = np.arange(OBJECTS)[:, None] >= counts[:, None, None]
    other = np.where(padding, np.float32(np.nan), costs)
    expected = solve(costs, counts, batched=False)
    np.testing.assert_array_equal(expected, solve(other, counts, batched=False))


def test_more_objects_than_queries_are_refused_when_traced():
    costs, counts = jnp.zeros((1, 1, 13, 12)), jnp.zeros(1, jnp.int32)
    with pytest.raises(ConfigError, match="13 objects of an image cannot be matched by 12 queries"):
        jax.eval_shape(assign, costs, counts)


def test_nothing_is_transferred_to_the_host():
    costs, counts = jnp.zeros((4, IMAGES, OBJECTS, QUERIES)), jnp.zeros(IMAGES, jnp.int32)
    text = solve.lower(costs, counts).compile().as_text()
    assert "while" in text
    for transfer in ("custom-call", "infeed", "outfeed", "send(", "recv(", "callback"):
        assert transfer not in text, transfer


def test_devices_solve_their_own_images_without_talking():
    mesh = jax.make_mesh((8, 1), ("data", "fsdp"), (jax.sharding.AxisType.Auto,) * 2)
    draw = np.random.default_rng(5)
    costs = random_costs(draw, (2, 16, OBJECTS, QUERIES)).astype(np.float32)
    counts = draw.integers(0, OBJECTS + 1, size=16).astype(np.int32)
    expected = solve(costs, counts)
    with jax.set_mesh(mesh):
        rows = PartitionSpec(("data", "fsdp"))
        there = jax.device_put(costs, NamedSharding(mesh, PartitionSpec(None, *rows)))
        number = jax.device_put(counts, NamedSharding(mesh, rows))
        compiled = jax.jit(assign).lower(there, number).compile()
        found = compiled(there, number)
    np.testing.assert_array_equal(found, expected)
    for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert word not in compiled.as_text(), word


def test_query_of_object_is_the_inverse():
    owner = jnp.array([[2, FREE, 0, FREE], [FREE, FREE, FREE, FREE]])
    found = functools.partial(query_of_object, objects=3)(owner)
    np.testing.assert_array_equal(found, [[2, FREE, 0], [FREE] * 3])
