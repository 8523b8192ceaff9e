"""The periodic rewrite of the train state: densification, with a ledger row for each.

A refinement takes the Gaussians, their Adam moments and the mask of living slots out of the train
state, lets the strategy change them together, and puts them back. Where the Gaussians lie sharded
over devices (`dealt`), slots are filled so that the shards stay equally full.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from splats.config import RESET_CEILING, DensifyConfig
from splats.gaussians import densify_default, densify_mcmc, screen_gradients
from splats.gaussians.population import (
    Gaussians,
    Population,
    dealt_rows,
    pad_population,
    resize_rows,
)
from splats.gaussians.screen_gradients import ScreenGradients
from training.state import TrainState

Ledger = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SplatState:
    """What is not differentiated; all of it [N].

    Attributes:
      alive: bool, slots that hold a Gaussian.
      visible: bool, Gaussians that the last update has seen.
      gradients: statistics since the last refinement.
    """

    alive: jax.Array
    visible: jax.Array
    gradients: ScreenGradients

    def after_views(self, seen: jax.Array, part: jax.Array | int) -> SplatState:
        """The state after views of which `seen` [N] have each Gaussian.

        Args:
          part: number of the micro-batch in its update: from the second on, what was visible in
            the ones before stays so.
        """
        visible = (seen > 0) | (self.visible & (part > 0))
        views = replace(self.gradients, views=self.gradients.views + seen)
        return replace(self, visible=visible, gradients=views)


def new_splat_state(alive: jax.Array) -> SplatState:
    """Before the first update: nothing has been seen."""
    return SplatState(alive, jnp.zeros_like(alive), screen_gradients.empty(alive.shape[0]))


def drawable(state: TrainState) -> Gaussians:
    """The Gaussians of a train state as the renderer takes them, with `alive`."""
    return state.params["gaussians"] | {"alive": state.model_state.alive}


def population_of(state: TrainState) -> Population:
    """The Gaussians of a train state with their moments."""
    return Population(
        state.params["gaussians"],
        state.opt_state.mu["gaussians"],
        state.opt_state.nu["gaussians"],
        state.model_state.alive,
    )


def with_population(state: TrainState, population: Population) -> TrainState:
    """The train state with other Gaussians; everything else stays."""
    opt_state = state.opt_state._replace(
        mu=state.opt_state.mu | {"gaussians": population.mu},
        nu=state.opt_state.nu | {"gaussians": population.nu},
    )
    return replace(
        state,
        params=state.params | {"gaussians": population.gaussians},
        opt_state=opt_state,
        model_state=replace(state.model_state, alive=population.alive),
    )


@functools.partial(jax.jit, static_argnums=(1, 2))
def resized(state: TrainState, capacity: int, dealt: bool = False) -> TrainState:
    """The same Gaussians, moments and statistics in more slots, dealt anew or the first ones."""
    state = with_population(state, pad_population(population_of(state), capacity))

    def padded(leaf: jax.Array) -> jax.Array:
        return resize_rows(leaf, capacity)

    model = state.model_state
    model = replace(
        model, visible=padded(model.visible), gradients=jax.tree.map(padded, model.gradients)
    )
    state = replace(state, model_state=model)
    return deal(state) if dealt else state


def deal(state: TrainState) -> TrainState:
    """The same Gaussians, moments and statistics in dealt slots, whichever they were in."""
    rows = dealt_rows(state.model_state.alive)

    def taken(leaf: jax.Array) -> jax.Array:
        return leaf[rows]

    state = with_population(state, jax.tree.map(taken, population_of(state)))
    model = state.model_state  # `alive` went with the population
    moved = jax.tree.map(taken, (model.visible, model.gradients))
    return replace(state, model_state=SplatState(model.alive, *moved))


def shard_imbalance(alive: jax.Array, shards: int) -> jax.Array:
    """Living Gaussians of the fullest shard over their mean; 1 if balanced, `shards` at worst."""
    counts = jnp.sum(alive.reshape(shards, -1).astype(jnp.float32), axis=1)
    # At least the mean of a single Gaussian: where none is alive the result is 0, not 0 / 0.
    return jnp.max(counts) / jnp.maximum(jnp.mean(counts), 1.0 / shards)


def refine(
    state: TrainState,
    key: jax.Array,
    config: DensifyConfig,
    cap: int,
    scene_scale: float,
    shards: int | None = None,
) -> tuple[TrainState, Ledger]:
    """One refinement by the configured strategy; traceable.

    Args:
      cap: largest number of Gaussians.
      scene_scale: world units.
      shards: over so many devices the Gaussians lie sharded, in dealt slots; None: they do not.
    """
    population, dealt = population_of(state), shards is not None
    if config.strategy == "mcmc":
        population, row = _sample(population, key, config, cap, dealt)
        state = with_population(state, population)
    else:
        state, row = _control_density(state, population, key, config, scene_scale, dealt)
    alive = state.model_state.alive
    row |= {"alive": jnp.sum(alive), "capacity": jnp.int32(alive.shape[0])}
    if shards is not None:
        row["shard_imbalance"] = shard_imbalance(alive, shards)
    return state, {f"densify/{name}": value for name, value in row.items()}


def _sample(
    population: Population, key: jax.Array, config: DensifyConfig, cap: int, dealt: bool
) -> tuple[Population, Ledger]:
    relocation_key, growth_key = jax.random.split(key)
    population, relocated = densify_mcmc.relocate(population, relocation_key, config.min_opacity)
    population, added = densify_mcmc.grow(
        population, growth_key, cap, config.growth, config.min_opacity, dealt
    )
    return population, {"relocated": relocated, "added": added}


def _control_density(
    state: TrainState,
    population: Population,
    key: jax.Array,
    config: DensifyConfig,
    scene_scale: float,
    dealt: bool,
) -> tuple[TrainState, Ledger]:
    """Adaptive density control, then, every `reset_every` updates, the opacity reset."""
    thresholds = densify_default.Thresholds(
        config.grow_grad2d,
        config.grow_scale3d,
        config.prune_opa,
        config.prune_scale3d,
        config.revised_opacity,
    )
    applied = state.applied
    statistics = state.model_state.gradients
    gradient = statistics.mean()
    row = screen_gradients.masked_quantiles(gradient, population.alive & (statistics.views > 0))
    paused = applied % config.reset_every < config.pause_refine_after_reset
    refined, counts = densify_default.refine(
        population, gradient, key, scene_scale, applied > config.reset_every, thresholds, dealt
    )
    # Computed in any case and then chosen: a pause is rare, and one path is simpler than two.
    nothing = jax.tree.map(jnp.zeros_like, counts)
    population, counts, statistics = jax.tree.map(
        lambda old, new: jnp.where(paused, old, new),
        (population, nothing, statistics),
        (refined, counts, screen_gradients.empty(population.capacity)),
    )
    # Crossed since the refinement before, so that a suppressed update cannot hide the boundary.
    due = applied // config.reset_every > (applied - config.refine_every) // config.reset_every
    reset = densify_default.reset_opacity(population, RESET_CEILING * config.prune_opa)
    population = jax.tree.map(lambda old, new: jnp.where(due, new, old), population, reset)
    state = with_population(state, population)
    state = replace(state, model_state=replace(state.model_state, gradients=statistics))
    row |= {
        "cloned": counts.cloned,
        "split": counts.split,
        "pruned": counts.pruned,
        "dropped": counts.dropped,
        "threshold": jnp.float32(config.grow_grad2d),
        "opacity_reset": due,
    }
    return state, row


def explored(
    gaussians: Gaussians,
    model_state: SplatState,
    config: DensifyConfig,
    learning_rate: jax.Array,
    key: jax.Array,
) -> Gaussians:
    """After an update of MCMC: the Gaussians with noise on their means; else as they are."""
    if config.strategy != "mcmc" or not config.noise_lr:
        return gaussians
    rows = model_state.alive
    if config.noise_on_visible:
        rows = rows & model_state.visible
    means = densify_mcmc.add_noise(
        gaussians, rows, learning_rate, key, config.noise_lr, config.min_opacity
    )
    return gaussians | {"means": means}


def growth_wanted(ledger: dict[str, float] | None, cap: int) -> bool:
    """Whether the slots are nearly full and may be doubled, judged from a ledger row."""
    if not ledger or ledger["densify/capacity"] >= cap:
        return False
    # Before they are full, since births that find no slot are dropped.
    nearly_full = ledger["densify/alive"] > 0.75 * ledger["densify/capacity"]
    return nearly_full or ledger.get("densify/dropped", 0.0) > 0
