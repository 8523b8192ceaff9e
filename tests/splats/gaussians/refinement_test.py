"""When adaptive density control refines, pauses, resets opacities and prunes large Gaussians."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from splats.config import DensifyConfig
from splats.gaussians import refinement
from splats.gaussians.population import pad_population
from splats.gaussians.screen_gradients import ScreenGradients, accumulate, empty
from tests.splats.populations import make_population
from training.state import TrainState

pytestmark = pytest.mark.usefixtures("quick_compilation")

SLOTS, ALIVE, LARGE, BUSY = 32, 16, 3, 5
EVERY, RESET_EVERY = 100, 300
THRESHOLD = 2e-4
CONFIG = DensifyConfig("default", refine_every=EVERY, reset_every=RESET_EVERY)
PAUSING = DensifyConfig(
    "default", refine_every=EVERY, reset_every=RESET_EVERY, pause_refine_after_reset=2 * EVERY
)


@pytest.fixture
def state(new_key):
    """Opaque small Gaussians, one of them large; row BUSY has three times the threshold."""
    population = make_population(new_key(), SLOTS, ALIVE, opacity=np.full(SLOTS, 0.5))
    sizes = jnp.full((SLOTS, 3), 0.005).at[LARGE].set(1.0)
    population.gaussians["scales"] = jnp.log(sizes)
    views = jnp.full(SLOTS, 4.0)
    statistics = ScreenGradients((views * 0.5 * THRESHOLD).at[BUSY].set(12 * THRESHOLD), views)
    wrapped = [{"gaussians": tree} for tree in (population.gaussians, population.mu, population.nu)]
    return TrainState(
        step=jnp.int32(0),
        skipped=jnp.int32(0),
        params=wrapped[0],
        opt_state=optax.ScaleByAdamState(jnp.int32(0), wrapped[1], wrapped[2]),
        ema=None,
        model_state=refinement.SplatState(population.alive, jnp.zeros(SLOTS, bool), statistics),
        key=new_key(),
    )


@functools.partial(jax.jit, static_argnames="config")
def refined(state, applied, key, config=CONFIG):
    """The state and the ledger after a refinement at an update; one update was suppressed."""
    state = state.__class__(**{**vars(state), "step": applied + 1, "skipped": jnp.int32(1)})
    return refinement.refine(state, key, config, SLOTS, 1.0)


def opacities(state):
    """Of the living Gaussians."""
    alive = np.asarray(state.model_state.alive)
    return np.asarray(jax.nn.sigmoid(state.params["gaussians"]["opacities"]))[alive]


def test_only_rows_whose_mean_gradient_is_high_are_refined(state, new_key):
    after, row = refined(state, EVERY, new_key())
    assert int(row["densify/cloned"]) == 1 and int(row["densify/split"]) == 0
    np.testing.assert_array_equal(
        after.params["gaussians"]["means"][ALIVE], state.params["gaussians"]["means"][BUSY]
    )


def test_statistics_begin_anew_after_a_refinement(state, new_key):
    after, _ = refined(state, EVERY, new_key())
    assert not after.model_state.gradients.total.any()
    assert not after.model_state.gradients.views.any()


def test_large_gaussians_go_only_after_the_first_reset(state, new_key):
    until, row = refined(state, RESET_EVERY, new_key())
    assert int(row["densify/pruned"]) == 0 and until.model_state.alive[LARGE]
    beyond, row = refined(state, RESET_EVERY + EVERY, new_key())
    assert int(row["densify/pruned"]) == 1 and not beyond.model_state.alive[LARGE]


@pytest.mark.parametrize("late", [0, 3])
def test_opacities_are_reset_once_when_the_cadence_is_crossed(state, new_key, late):
    """Also where suppressed updates put the refinement a little behind the boundary."""
    for applied in (RESET_EVERY - EVERY, RESET_EVERY, RESET_EVERY + EVERY):
        after, row = refined(state, applied + late, new_key())
        due = applied == RESET_EVERY
        assert bool(row["densify/opacity_reset"]) == due
        assert (opacities(after) < 0.1).all() == due


def test_pause_after_a_reset_changes_nothing_and_goes_on_counting(state, new_key):
    paused, row = refined(state, RESET_EVERY + EVERY, new_key(), config=PAUSING)
    for name in ("cloned", "split", "pruned", "dropped"):
        assert int(row[f"densify/{name}"]) == 0
    for name in ("params", "opt_state", "model_state"):
        old, new = getattr(state, name), getattr(paused, name)
        jax.tree.map(np.testing.assert_array_equal, new, old)
    _, row = refined(state, RESET_EVERY + 2 * EVERY, new_key(), config=PAUSING)
    assert int(row["densify/cloned"]) == 1


@pytest.mark.parametrize("views", [1, 3])
def test_statistics_depend_neither_on_the_resolution_nor_on_the_views_of_a_batch(new_key, views):
    """A gradient per pixel falls with the width; that of a mean over views with their number."""
    per_unit = jax.random.normal(new_key(), (views, SLOTS, 2))
    expected = np.linalg.norm(np.asarray(per_unit, np.float64), axis=-1).sum(axis=0)
    for width, height in ((64, 32), (640, 480)):
        per_pixel = per_unit / jnp.array([[[width / 2, height / 2]]]) / views
        total = accumulate(empty(SLOTS), per_pixel, width, height, views).total
        # Six roundings, and a norm of two squares that are added over the views.
        np.testing.assert_allclose(total, expected, rtol=8 * np.finfo(np.float32).eps)


def test_new_slots_are_free_and_hold_rotations(new_key):
    padded = pad_population(make_population(new_key(), ALIVE, ALIVE), SLOTS)
    assert not padded.alive[ALIVE:].any()
    np.testing.assert_array_equal(
        padded.gaussians["quats"][ALIVE:], np.tile([1.0, 0, 0, 0], (SLOTS - ALIVE, 1))
    )
