"""What to learn: Gaussians whose renderings look like the photographs of a scene.

Parameters: `gaussians` (one row per slot, see `splats.gaussians.population`) and, on request,
`bilateral` (a color correction per training view) and `poses` (a pose correction per training
view). Examples are numbers of training views; photographs and cameras stay on the devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from splats import evaluation, guards
from splats.checks import gradient_health
from splats.checks import start as start_checks
from splats.config import SYNTHETIC, Config, in_scene_units, scaled_for_batch
from splats.data import scene_facts
from splats.data.background import Color, background_color
from splats.data.scene import Scene
from splats.data.scene_access import SceneAccess, access
from splats.data.scene_facts import SceneFacts
from splats.data.views import ViewSource, view_arrays
from splats.gaussians import refinement, screen_gradients, sizes
from splats.gaussians.exchange import GROUP
from splats.gaussians.population import update_rows
from splats.gaussians.refinement import SplatState, drawable, new_splat_state
from splats.gaussians.sizes import Sizes
from splats.gaussians.starting_gaussians import (
    NO_POINTS,
    StartingPoints,
    initial_gaussians,
    starting_points,
)
from splats.losses import bilateral, poses, regularizers
from splats.losses.depth import supervising_points
from splats.losses.over_devices import batch_sums, gaussian_shards
from splats.losses.terms import loss_terms
from splats.losses.view_sums import BatchInputs, SceneModel, ViewComparison, random_backgrounds
from splats.metrics.lpips import Lpips
from splats.metrics.lpips_weights import load_lpips
from splats.prepare import scene_table
from splats.render import RenderSettings
from splats.render.rasterize import check_backend
from training.capabilities import (
    Augmented,
    Cadence,
    Guards,
    OptimizerOwner,
    Probing,
    Projecting,
    Refreshable,
    Resizable,
    Sharded,
    ShardingRules,
)
from training.config import OptimizerConfig
from training.loss import Batch, Context, LossOutput, LossTerm, Total
from training.mesh import Layout
from training.optimizer import label_by_rules
from training.source import Source, Sources
from training.state import TrainState
from training.task import Task
from training.verdict import Description, Evaluation, Table, Verdict

GAUSSIANS_SHARDED = ((r"gaussians/|model_state/", (GROUP,)),)
PARAMETER_FLOATS = 59  # of one Gaussian with harmonics of degree 3


def make_task(config: Config) -> SplatTask:
    """The task of a config; no photograph is read yet."""
    return SplatTask(config, access(config.scene))


@dataclass(frozen=True, eq=False)
class SplatTask(
    Task, Probing, Projecting, Refreshable, Resizable, OptimizerOwner, Sharded, Augmented
):
    """One scene, configured.

    Attributes:
      world: the scene; its photographs are read by training and evaluation, never by a use of the
        model.
      given_sizes: of a checkpoint, or grown since the start; None: they follow from the points.
      first_degree: harmonics in use from the first update on; 0 unless Gaussians were imported.
    """

    config: Config
    world: SceneAccess
    given_sizes: Sizes | None = None
    first_degree: int = 0

    @property
    def scene(self) -> Scene:
        """With photographs, which are loaded now."""
        return self.world.scene

    @property
    def facts(self) -> SceneFacts:
        """The scene without photographs."""
        return self.world.facts

    @cached_property
    def sizes(self) -> Sizes:
        """Room for Gaussians, pairs and the exchange."""
        if self.given_sizes is not None:
            return self.given_sizes
        random = self.config.model.initialization == "random"
        points = self.config.model.random_points if random else len(self.scene.points)
        return sizes.starting_sizes(points, self.config)

    @cached_property
    def replay_reasons(self) -> tuple[str, ...]:  # type: ignore[override]
        return sizes.replay_reasons(self.config)

    @cached_property
    def sharding_rules(self) -> ShardingRules:  # type: ignore[override]
        return GAUSSIANS_SHARDED if self.config.shard_gaussians else ()

    @cached_property
    def loss_terms(self) -> Mapping[str, LossTerm]:  # type: ignore[override]
        bilateral_grid = self.config.model.bilateral_grid
        losses = self.config.losses
        transparent = bool(losses.alpha) and self.scene.alpha is not None
        return loss_terms(losses, bilateral_grid, self.scene_scale, transparent)

    @cached_property
    def refresh_cadence(self) -> Cadence | None:  # type: ignore[override]
        densify = self.config.densify
        if densify.strategy == "none":
            return None
        return Cadence(densify.refine_every, densify.refine_start_iter, densify.refine_stop_iter)

    @cached_property
    def scene_scale(self) -> float:
        return float(self.facts.scene_scale * self.config.scene.scale_factor)

    @cached_property
    def background(self) -> Color:
        """Behind renderings and transparent photographs."""
        return background_color(self.config.scene.background, self.facts.kind)

    @cached_property
    def settings(self) -> RenderSettings:
        options = self.config.render
        width, height = self.facts.size
        return RenderSettings(
            width=width,
            height=height,
            pair_capacity=self.sizes.pair_capacity,
            tile_size=options.tile_size,
            near=options.near,
            antialiased=options.antialiased,
            backend=options.backend,
            chunk=options.chunk,
            render_depth=bool(self.config.losses.depth),
        )

    @cached_property
    def lpips(self) -> Lpips | None:
        """The metric that the config asks for, read when it is first wanted."""
        return load_lpips(self.config.metrics, self.facts.sizes)

    @cached_property
    def points(self) -> StartingPoints:
        if self.world.saved is not None:
            return NO_POINTS  # the Gaussians are in the checkpoint; only their shapes are asked for
        return starting_points(self.scene, self.config.model, self.scene_scale, self.config.seed)

    def sources(self) -> Sources:
        return Sources(
            ViewSource(self.scene, self.scene.train),
            {"test": ViewSource(self.scene, self.scene.test)},
        )

    def resident(self) -> dict[str, np.ndarray]:
        arrays = view_arrays(self.scene, self.scene.train)
        if self.config.losses.depth:
            arrays |= supervising_points(self.scene, self.config.scene)
        return arrays

    def init(self, key: jax.Array) -> tuple[dict[str, Any], SplatState]:
        """Gaussians at the points of the scene; none alive where a checkpoint will be restored."""
        model, views = self.config.model, len(self.facts.train)
        gaussians, alive = initial_gaussians(
            self.points, self.sizes.capacity, model, key, self.config.shard_gaussians
        )
        params: dict[str, Any] = {"gaussians": gaussians}
        if model.bilateral_grid:
            params["bilateral"] = bilateral.identity_grids(views)
        if model.pose_correction:
            params["poses"] = poses.no_corrections(views)
        return params, new_splat_state(alive)

    def optimizer_groups(self, params: dict[str, Any]) -> dict[str, Any]:
        rules = [(f"gaussians/{name}", name) for name in params["gaussians"]]
        rules += [(name, name) for name in params if name != "gaussians"]
        return label_by_rules(params, rules)

    def optimizer(self) -> OptimizerConfig:
        """The rate of the means is in units of the scene; rows left out go without correction."""
        config = self.config
        settings = config.optimizer
        if config.batch_scaling == "sqrt":
            settings = scaled_for_batch(settings, config.batch_size)
        settings = in_scene_units(settings, self.scene_scale)
        return replace(settings, bias_correction=not config.selective_adam)

    def active_degree(self, applied: jax.Array) -> jax.Array:
        """Degree of the harmonics that is in use at an update."""
        model = self.config.model
        raised = jnp.maximum(applied // model.sh_every, self.first_degree)
        return jnp.minimum(raised, model.sh_degree)

    def probes(self, batch: Batch) -> dict[str, jax.Array] | None:
        """Zeros for the screen gradient of each view, and for gradients without regularizers."""
        zeros = regularizers.probes(self.config.losses, self.sizes.capacity)
        if self.config.densify.strategy == "default":
            shape = batch["view"].shape[0], self.sizes.capacity, 2
            zeros[self._screen_probe] = jnp.zeros(shape)
        return zeros or None

    @property
    def _screen_probe(self) -> str:
        return "absgrad" if self.config.densify.absgrad else "means2d"

    def absorb(self, model_state: SplatState, probe_gradients: dict[str, jax.Array]) -> SplatState:
        """Adds the screen gradients, of the loss of each view by itself, to the statistics."""
        if self._screen_probe not in probe_gradients:
            return model_state
        statistics = screen_gradients.accumulate(
            model_state.gradients,
            probe_gradients[self._screen_probe],
            self.settings.width,
            self.settings.height,
            self.config.batch_size,
        )
        return replace(model_state, gradients=statistics)

    def gradient_metrics(self, gradients, probe_gradients, model_state) -> dict[str, jax.Array]:
        visible = model_state.visible
        return gradient_health.metrics(gradients["gaussians"], probe_gradients or {}, visible)

    def loss(
        self, params: dict[str, Any], context: Context, batch: Batch, key: jax.Array
    ) -> LossOutput:
        model_state: SplatState = context.model_state
        # While it is traced: only the mesh of the moment says how many shards there are.
        sizes.check_shards(self.config)
        views = batch["view"].shape[0]
        seen_params, probes = regularizers.apart(params, context.probes or {})
        background = jnp.tile(jnp.array(self.background, jnp.float32), (views, 1))
        if self.config.losses.random_background:
            background = random_backgrounds(context.update_key, batch["position"])
        sums = batch_sums(
            ViewComparison(self.settings, self.config.losses),
            SceneModel(
                seen_params,
                model_state.alive,
                self.active_degree(context.applied),
                context.resident,
            ),
            BatchInputs(batch["view"], background, probes),
            self.sizes.exchange_rows(self.config),
        )
        terms = dict(sums.totals)
        metrics = {"pairs": terms.pop("pairs"), "visible": terms.pop("visible")}
        metrics["alive"] = Total(jnp.sum(model_state.alive.astype(jnp.float32)), jnp.float32(1.0))
        terms |= regularizers.terms(self.config.losses, params, sums.seen)
        selective = self.config.selective_adam
        rows = model_state.alive & (sums.seen > 0) if selective else model_state.alive
        return LossOutput(
            terms=terms,
            model_state=model_state.after_views(sums.seen, context.part),
            metrics=metrics,
            suppress=sizes.suppressions(self.config, sums),
            update_rows=update_rows(params, rows),
        )

    def after_update(
        self,
        params: dict[str, Any],
        model_state: SplatState,
        applied: jax.Array,
        learning_rates: Mapping[str, jax.Array],
        key: jax.Array,
    ) -> tuple[dict[str, Any], SplatState]:
        gaussians = refinement.explored(
            params["gaussians"], model_state, self.config.densify, learning_rates["means"], key
        )
        return params | {"gaussians": gaussians}, model_state

    def refresh(
        self, state: TrainState, context: Context, batch: Batch
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        densify, cap = self.config.densify, self.config.model.cap_max
        shards = gaussian_shards() if self.config.shard_gaussians else None
        return refinement.refine(state, context.update_key, densify, cap, self.scene_scale, shards)

    def resize_reason(self, ledger: Mapping[str, float]) -> str | None:
        wanted = refinement.growth_wanted(dict(ledger), self.config.model.cap_max)
        return sizes.FULL if wanted else None

    def resize(self, state: TrainState, reason: str) -> tuple[SplatTask, TrainState]:
        grown = self.sizes.grown(reason, self.config)
        if grown.capacity != self.sizes.capacity:
            state = refinement.resized(state, grown.capacity, self.config.shard_gaussians)
        return replace(self, given_sizes=grown), state

    @property
    def room_window(self) -> int:  # type: ignore[override]
        return sizes.window(len(self.facts.train), self.config)

    def spared(self, peaks: Mapping[str, float]) -> tuple[SplatTask, str] | None:
        fitted, sentence = self.sizes.spared(peaks["pairs"])
        return None if fitted == self.sizes else (replace(self, given_sizes=fitted), sentence)

    def metadata(self) -> dict[str, Any]:
        return {
            "sizes": self.sizes.to_metadata(),
            "first_degree": self.first_degree,
            "scene": scene_facts.to_metadata(self.facts),
        }

    def with_metadata(self, metadata: Mapping[str, Any]) -> SplatTask:
        return replace(
            self,
            world=self.world.told(scene_facts.from_metadata(metadata["scene"])),
            given_sizes=sizes.saved_sizes(metadata["sizes"]),
            first_degree=metadata["first_degree"],
        )

    def describe(self) -> Description:
        pixels = self.settings.width * self.settings.height
        counts = {"gaussians": PARAMETER_FLOATS * self.sizes.capacity}
        # About 90 operations per pixel and pair both ways (20 + 70); a tile sees 200 pairs.
        return Description(counts, 90.0 * 200 * pixels, {"view": ((), "int32")})

    def guards(self) -> Guards:
        photographs = self.config.scene.path != SYNTHETIC
        return Guards(
            names=guards.NAMES,
            # Higher harmonics have no gradient at degree 0; round Gaussians none in rotation.
            quiet_groups={"shN": self.config.model.sh_every, "quats": 100},
            start=self._start_guards,
            watches=lambda config: [gradient_health.GradientHealth(config.spike_patience)],
            evaluation=lambda history: guards.of_evaluations(history, photographs),
            refresh=guards.of_refinements,
        )

    def _start_guards(
        self, state: TrainState, batch: Batch, resident: dict[str, jax.Array]
    ) -> list[Verdict]:
        _ = self.lpips  # a metric that cannot be computed is refused before training
        # Not where the task is made: a step may be compiled for devices that are elsewhere.
        check_backend(self.config.render.backend, min(state.step.devices(), key=lambda d: d.id))
        return start_checks.run(self, state, batch, resident)

    def evaluate(self, state: TrainState, source: Source, layout: Layout) -> Evaluation:
        """Scores of the source's views, and of as many training views, with the gap."""
        check_backend(self.config.render.backend, layout.mesh.devices.flat[0])
        number = {name: index for index, name in enumerate(self.scene.names)}
        views = np.array([number[source.identity(i)] for i in range(len(source))], np.int32)
        result = evaluation.evaluate(
            self.scene,
            views,
            drawable(state),
            self.settings,
            self.active_degree(state.applied),
            layout,
            self.lpips,
            background=self.background,
            corrected=self.config.model.bilateral_grid,
        )
        alive = float(jnp.sum(state.model_state.alive))
        counts = {"alive": alive, "capacity": float(self.sizes.capacity)}
        return replace(result, metrics=result.metrics | counts)

    def tables(self) -> dict[str, Table]:
        return {"scene": scene_table(self.scene)}

    def without_augmentation(self) -> SplatTask:
        """No random background, no noise, no densification; all harmonics soon."""
        config = replace(
            self.config,
            model=replace(self.config.model, sh_every=10),
            losses=replace(self.config.losses, random_background=False),
            densify=replace(self.config.densify, strategy="none"),
        )
        # Sizes follow from the strategy, which is another one now; the state has those of before.
        return replace(self, config=config, given_sizes=self.sizes)

    def overfit_verdict(self, before: Evaluation, after: Evaluation) -> Verdict:
        return guards.overfit(before.metrics, after.metrics)
