"""Slots are dealt so that the shards of any number of devices stay equally full."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from splats.config import DensifyConfig, splat_optimizer
from splats.gaussians import densify_default, densify_mcmc, refinement
from splats.gaussians.densify_default import Thresholds
from splats.gaussians.population import Population, dealt_order, dealt_rows, rank_within
from splats.gaussians.starting_gaussians import initial_gaussians
from tests.splats.populations import make_population
from tests.splats.scenes import batches, make_program, small_task
from training.config import MeshConfig
from training.errors import ConfigError
from training.optimizer import build_optimizer
from training.state import new_state

pytestmark = pytest.mark.usefixtures("quick_compilation")

DEVICES = (2, 3, 4, 6, 8)


def radical_inverse(number: int, bits: int) -> int:
    return int(f"{number:0{bits}b}"[::-1], 2)


@pytest.mark.parametrize("slots", [1, 2, 24, 64, 1000])
def test_the_order_is_that_of_the_reversed_bits(slots):
    bits = max(slots - 1, 1).bit_length()
    expected = sorted(range(slots), key=lambda slot: radical_inverse(slot, bits))
    np.testing.assert_array_equal(dealt_order(slots), expected)


@pytest.mark.parametrize("slots", [1024, 3000, 4200])
@pytest.mark.parametrize("devices", DEVICES)
def test_the_first_slots_are_spread_evenly_over_any_number_of_devices(slots, devices):
    taken = np.zeros(slots)
    for count, slot in enumerate(np.asarray(dealt_order(slots)), start=1):
        taken[slot] = 1
        counts = [part.sum() for part in np.array_split(taken, devices)]
        assert max(counts) - min(counts) <= np.log2(slots), count
    # Neighbors of a reconstruction do not end up on one device.
    first = np.asarray(dealt_order(slots))[:64] * devices // slots
    assert (first[1:] != first[:-1]).mean() > 0.5


def test_ranks_follow_the_order_and_without_dealing_the_index(new_key):
    mask = jax.random.bernoulli(new_key(), 0.5, (100,))
    order = [slot for slot in np.asarray(dealt_order(100)) if mask[slot]]
    ranks = np.asarray(rank_within(mask, dealt=True))
    np.testing.assert_array_equal(ranks[order], np.arange(len(order)))
    by_index = np.asarray(rank_within(mask))
    np.testing.assert_array_equal(by_index[np.flatnonzero(mask)], np.arange(len(order)))


def test_dealing_moves_every_row_once_and_the_living_ones_first(new_key):
    alive = jax.random.bernoulli(new_key(), 0.3, (96,))
    rows = np.asarray(dealt_rows(alive))
    np.testing.assert_array_equal(np.sort(rows), np.arange(96))
    np.testing.assert_array_equal(
        rows[np.asarray(dealt_order(96))][: int(alive.sum())], np.flatnonzero(alive)
    )


def worst_imbalance(alive) -> float:
    dividing = [devices for devices in DEVICES if alive.shape[0] % devices == 0]
    return max(float(refinement.shard_imbalance(alive, devices)) for devices in dividing)


def test_the_imbalance_is_the_largest_share_over_the_mean():
    alive = jnp.array([1, 1, 1, 1, 1, 0, 0, 0], bool)
    assert float(refinement.shard_imbalance(alive, 4)) == pytest.approx(2 / 1.25)
    assert float(refinement.shard_imbalance(alive, 1)) == 1.0
    assert float(refinement.shard_imbalance(jnp.zeros(8, bool), 4)) == 0.0


@functools.partial(jax.jit, static_argnames="strategy")
def one_round(population: Population, key, strategy: str) -> Population:
    """Grows by a third, then a tenth dies, all of it drawn at random."""
    grow_key, death_key, draw_key = jax.random.split(key, 3)
    slots = population.capacity
    if strategy == "mcmc":
        population, _ = densify_mcmc.grow(population, grow_key, slots, 1.3, dealt=True)
    else:
        gradient = jax.random.uniform(draw_key, (slots,))
        thresholds = Thresholds(0.7, prune_opa=0.0)
        population, _ = densify_default.refine(
            population, gradient, grow_key, 1.0, False, thresholds, dealt=True
        )
    survives = jax.random.bernoulli(death_key, 0.9, (slots,))
    return replace(population, alive=population.alive & survives)


@pytest.mark.parametrize("strategy", ["default", "mcmc"])
def test_shards_stay_balanced_through_growth_pruning_and_doubled_slots(new_key, strategy):
    state = state_of(make_population(new_key(), 960, 300))
    assert worst_imbalance(state.model_state.alive) > 1.9
    state = refinement.deal(state)
    for number in range(8):
        assert worst_imbalance(state.model_state.alive) < 1.12, number
        population = one_round(refinement.population_of(state), new_key(), strategy)
        state = refinement.with_population(state, population)
        alive = state.model_state.alive
        if float(jnp.mean(alive)) > 0.75:
            before = int(alive.sum())
            state = jax.jit(refinement.resized, static_argnums=(1, 2))(
                state, 2 * alive.shape[0], True
            )
            assert int(state.model_state.alive.sum()) == before
            assert worst_imbalance(state.model_state.alive) < 1.03
    assert state.model_state.alive.shape[0] > 960


def state_of(population: Population):
    """A train state around a population; only what refinements touch."""
    params = {"gaussians": population.gaussians}
    labels = {"gaussians": {name: name for name in population.gaussians}}
    optimizer = build_optimizer(splat_optimizer(shN=0.0), labels, 60)
    model_state = refinement.new_splat_state(population.alive)
    state = new_state(params, model_state, optimizer.init(params), None, jax.random.key(1))
    return refinement.with_population(state, population)


def test_births_fill_the_emptier_shards_after_a_run_without_dealing(new_key):
    population = make_population(new_key(), 960, 240)  # all in the first of four shards
    imbalances = []
    for _ in range(4):
        imbalances.append(float(refinement.shard_imbalance(population.alive, 4)))
        population = one_round(population, new_key(), "mcmc")
    assert imbalances[0] == 4.0 and imbalances == sorted(imbalances, reverse=True)
    assert imbalances[-1] < 2.5


def test_dealing_keeps_every_row_of_the_state_together(new_key):
    state = state_of(make_population(new_key(), 64, 40))
    statistics = replace(
        state.model_state.gradients, total=state.params["gaussians"]["opacities"] * 2.0
    )
    state = replace(state, model_state=replace(state.model_state, gradients=statistics))
    mean = state.params["gaussians"]["means"][:, 0]
    state = replace(
        state,
        opt_state=state.opt_state._replace(
            nu={"gaussians": state.opt_state.nu["gaussians"] | {"opacities": mean}}
        ),
    )
    for after in (refinement.deal(state), refinement.resized(state, 100, dealt=True)):
        gaussians, alive = after.params["gaussians"], after.model_state.alive
        assert int(alive.sum()) == 40
        total, moments = after.model_state.gradients.total, after.opt_state.nu["gaussians"]
        np.testing.assert_array_equal(total[alive], 2.0 * gaussians["opacities"][alive])
        np.testing.assert_array_equal(moments["opacities"][alive], gaussians["means"][alive, 0])
        np.testing.assert_array_equal(
            np.sort(gaussians["opacities"][alive]),
            np.sort(state.params["gaussians"]["opacities"][:40]),
        )


def test_points_are_dealt_at_the_start_where_gaussians_are_sharded(new_key):
    task, key = small_task(512, shard_gaussians=True), new_key()
    params, model_state = task.init(key)
    first, alive = initial_gaussians(task.points, 512, task.config.model, key)
    assert worst_imbalance(model_state.alive) < 1.1 < worst_imbalance(alive)
    order = np.asarray(dealt_order(512))[: int(alive.sum())]
    for name, leaf in params["gaussians"].items():
        np.testing.assert_array_equal(leaf[order], first[name][alive], err_msg=name)
    assert np.linalg.norm(params["gaussians"]["quats"], axis=1).min() > 0


def test_one_ledger_row_says_how_even_the_shards_are():
    state = state_of(make_population(jax.random.key(3), 64, 20))
    for shards in (None, 4):
        refine = jax.jit(refinement.refine, static_argnums=(2, 3, 4, 5))
        _, row = refine(state, state.key, DensifyConfig("mcmc"), 64, 1.0, shards)
        assert ("densify/shard_imbalance" in row) == (shards is not None)


def test_a_capacity_that_the_devices_do_not_divide_is_refused_before_the_first_update():
    task = small_task(
        256,
        model=replace(small_task().config.model, cap_max=1023),
        shard_gaussians=True,
        mesh=MeshConfig(data=1, fsdp=2),
    )
    program = make_program(replace(task, config=replace(task.config, batch_size=2)), 2)
    with jax.set_mesh(program.layout.mesh), pytest.raises(ConfigError, match="multiple of 2"):
        program.step(program.initial_state(), batches(program, range(1)))
