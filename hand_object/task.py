"""What to learn: fields of a hand, an object and a background whose renderings look like a video.

Parameters: `nodes` (a field for each hand and the object, see `render.nodes`), `poses` (tables of
every frame) and, on request, `background` with `background_codes`. Examples are numbers of frames;
pictures and masks stay on the devices, and pixels are drawn there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hand_object import evaluation, guards, hand_off
from hand_object.config import Config, SequenceConfig
from hand_object.data.frames import (
    FrameSource,
    content_of,
    frame_arrays,
    held_out,
    nodes_of,
)
from hand_object.data.sequence import UNKNOWN
from hand_object.data.sequence_access import Opened, open_sequence
from hand_object.fields.prefit import Template, prefit, sample_template
from hand_object.grasps import Grasp, find_grasps
from hand_object.losses.auxiliary import Held
from hand_object.losses.base import Base, base_terms
from hand_object.losses.temporal import neighbors
from hand_object.losses.terms import loss_terms
from hand_object.prior.grid import hand_frame
from hand_object.prior.prior_file import load_prior
from hand_object.render.scene import init_caches, init_scene
from hand_object.render.scene_placement import Statics, placements, start_tables, statics_of
from hand_object.stage import Stage
from hand_object.witness import make_witness
from training.capabilities import Cadence, Guards, Inheriting, Refreshable, Witnessed
from training.loss import Batch, Context, LossOutput, LossTerm, Total
from training.mesh import Layout
from training.optimizer import FROZEN, label_by_rules
from training.paths import named_leaves, nested
from training.source import Source, Sources
from training.state import TrainState
from training.task import Task
from training.verdict import Description, Evaluation, Table, Verdict

MANO_NUMBERS = 45  # of a finger pose: 15 joints


def make_task(config: Config) -> HandObjectTask:
    """The task of a config; no frame is read yet."""
    return HandObjectTask(config, Video(config.sequence))


class Video:
    """A promise of a sequence, shared by all tasks of a run, so that nothing is read twice.

    It may first be asked for while a step is traced, hence `ensure_compile_time_eval`: what is
    computed here is computed then.
    """

    def __init__(self, config: SequenceConfig):
        self.config = config

    @cached_property
    def opened(self) -> Opened:
        with jax.ensure_compile_time_eval():
            return open_sequence(self.config)

    @cached_property
    def content(self) -> str:
        return content_of(self.opened)

    @cached_property
    def statics(self) -> Statics:
        with jax.ensure_compile_time_eval():
            return statics_of(self.opened.sequence, self.opened.hands)

    @cached_property
    def start_poses(self) -> dict[str, Any]:
        with jax.ensure_compile_time_eval():
            return jax.tree.map(np.asarray, start_tables(self.opened.sequence))


@dataclass(frozen=True, eq=False)
class HandObjectTask(Task, Refreshable, Inheriting, Witnessed):
    """One video, configured."""

    config: Config
    video: Video
    # A cache only says where to look; the loss is the same function after it.
    refresh_changes_loss = False

    @property
    def opened(self) -> Opened:
        return self.video.opened

    @property
    def statics(self) -> Statics:
        return self.video.statics

    @cached_property
    def stage(self) -> Stage:
        """The auxiliary terms; a held-out frame is for them what an absent one is."""
        taught, sequence = ~self.held_out, self.opened.sequence
        valid = {side: track.valid for side, track in sequence.hands.items()}
        if sequence.object is not None:
            valid["object"] = sequence.object.valid
        near = {name: neighbors(own & taught) for name, own in valid.items()}
        config = self.config
        total = config.total.resolve("total", config.batch_size, int(taught.sum()))
        return Stage(config, total, near, self._held)

    @property
    def _held(self) -> Held | None:
        """The hand that holds the object longest."""
        grasps = self.grasps
        if not grasps:
            return None
        side = max(grasps, key=lambda name: int(grasps[name].holding.sum()))
        return Held(side, hand_frame(self.opened.hands[side]))

    @cached_property
    def grasps(self) -> dict[str, Grasp]:
        """When hands hold the object; looked for only where a phase needs it."""
        if not {"sds", "contact"} & self.config.phases.enabled().keys():
            return {}
        with jax.ensure_compile_time_eval():
            return find_grasps(self.opened, self.video.statics)

    @cached_property
    def loss_terms(self) -> Mapping[str, LossTerm]:  # type: ignore[override]
        masks = bool((self.opened.masks != UNKNOWN).any())
        base = loss_terms(self.config.losses, masks=masks, hands=bool(self.opened.hands))
        return base | self.stage.loss_terms()

    @cached_property
    def refresh_cadence(self) -> Cadence | None:  # type: ignore[override]
        sampler, cadences = self.config.model.sampler, []
        if sampler.kind == "proposal":
            cadences.append(sampler.cache_every)
        if self.config.phases.enabled():
            cadences.append(self.config.balance.every)
            # Also before the first update: a term has no strength until it is measured.
            return Cadence(min(cadences), start=-1)
        return Cadence(cadences[0]) if cadences else None

    @property
    def held_out(self) -> np.ndarray:
        """[T] bool."""
        return held_out(len(self.opened.sequence), self.config.sequence.hold_out)

    @cached_property
    def templates(self) -> dict[str, Template]:
        """Points around the rest pose of each hand."""
        made = {}
        for side, hand in self.video.statics.hands.items():
            with jax.ensure_compile_time_eval():
                model = hand.model
                made[side] = sample_template(
                    np.asarray(model.template), np.asarray(model.faces), self.config.prefit.points
                )
        return made

    @property
    def start_poses(self) -> dict[str, Any]:
        """Pose tables of the data, numpy."""
        return self.video.start_poses

    def sources(self) -> Sources:
        name, content = self.opened.sequence.name, self.video.content

        def source(frames):
            return FrameSource(name, np.flatnonzero(frames), content)

        return Sources(source(~self.held_out), {"test": source(self.held_out)})

    def resident(self) -> dict[str, Any]:
        arrays = frame_arrays(self.opened, self.config.model.background)
        arrays["statics"] = self.video.statics
        arrays["start_poses"] = self.start_poses
        arrays["templates"] = {
            side: {"points": own.points, "distances": own.distances}
            for side, own in self.templates.items()
        }
        arrays["grasps"] = self.grasps
        asked = self.config.phases.sds
        if asked.on:
            arrays["prior"] = load_prior(asked.prior, asked.category)
        return arrays

    def rendering_arrays(self) -> dict[str, Any]:
        """What rendering a frame needs besides parameters and caches, numpy."""
        arrays = frame_arrays(self.opened, self.config.model.background)
        wanted = ("intrinsics", "camera_to_scene", "there", "backdrop")
        return {name: arrays[name] for name in wanted if name in arrays} | {
            "statics": self.video.statics
        }

    def init(self, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        """Fields with hands that know their template already (stage 0), and the data's poses."""
        model, settings = self.config.model, self.config.prefit
        sequence = self.opened.sequence
        numbers = {side: 3 * (t.pose.shape[1] - 1) for side, t in sequence.hands.items()}
        params = init_scene(key, model, hands=numbers, frames=len(sequence))
        if sequence.object is None:
            del params["nodes"]["object"]
        if settings.updates:
            for number, (side, template) in enumerate(sorted(self.templates.items())):
                node = params["nodes"][side]
                node["sdf"], _ = prefit(
                    jax.random.fold_in(key, number),
                    node["sdf"],
                    model,
                    template,
                    updates=settings.updates,
                    batch=settings.batch,
                )
        params["poses"] = jax.tree.map(jnp.asarray, self.start_poses)
        self.stage.check(named_leaves(self.optimizer_groups(params)), self.grasps)
        state = {"caches": init_caches(params, model, 0), "balance": self.stage.init_state()}
        return params, state

    def optimizer_groups(self, params: dict[str, Any]) -> dict[str, Any]:
        settings = self.config.poses
        hand_group = "poses" if settings.refine_hands else FROZEN
        rules = [(f"poses/{side}/.*", hand_group) for side in self.opened.hands]
        if "object" in params["poses"]:
            # The scale says the same as the size of the field.
            rules.append(("poses/object/log_scale", FROZEN))
            rules.append(("poses/object/.*", "poses" if settings.refine_object else FROZEN))
        if self.config.model.encoding.kind == "triplane":
            rules.append(("nodes/.*/planes", "planes"))
        rules += [("nodes/.*/beta", "densities"), (".*", "networks")]
        return label_by_rules(params, rules)

    def loss(
        self, params: dict[str, Any], context: Context, batch: Batch, key: jax.Array
    ) -> LossOutput:
        base = self._base(params, context, batch, key)
        terms, state, metrics = base.terms, context.model_state, base.metrics
        if self.stage.phases:
            totals = self.stage.totals(params, context, base.placed, batch["frame"])
            values = {name: self._weighted(name, total) for name, total in terms.items()}
            kept, balance, more = self.stage.restrained(context, values, totals)
            terms, state, metrics = terms | kept, state | {"balance": balance}, metrics | more
        return LossOutput(terms=terms, model_state=state, metrics=metrics)

    def _weighted(self, name: str, total: Total) -> jax.Array:
        """A term of the base times its coefficient."""
        coefficient = self.loss_terms[name].coefficient
        assert not callable(coefficient)
        return coefficient * total.mean()

    def _base(self, params: dict[str, Any], context: Context, batch: Batch, key: jax.Array) -> Base:
        """What acts throughout, without the terms that the config leaves out."""
        base = base_terms(self.config, nodes_of(self.opened.sequence), params, context, batch, key)
        declared = self.loss_terms
        return base._replace(terms={n: own for n, own in base.terms.items() if n in declared})

    def refresh(
        self, state: TrainState, context: Context, batch: Batch
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """The SDF caches of the fields as they are now, and the strength of auxiliary terms."""
        step = self.config.coarse_step(context.applied)
        caches = init_caches(state.params, self.config.model, step)
        row = {f"least_distance/{name}": jnp.min(cache) for name, cache in caches.items()}
        model_state = state.model_state | {"caches": caches}
        if self.stage.phases:
            context = replace(context, model_state=model_state)
            model_state["balance"] = self._measured(state.params, context, batch)
            for name, own in model_state["balance"]["terms"].items():
                row[f"strength/{name}"] = own["factor"]
        return replace(state, model_state=model_state), row

    def _measured(self, params: dict[str, Any], context: Context, batch: Batch) -> Any:
        """The balance after the gradients of base and auxiliary terms were measured apart."""
        arrays, frames = context.resident, batch["frame"]
        there = arrays["there"][frames]

        def base(some) -> jax.Array:
            terms = self._base(some, context, batch, context.update_key).terms
            weighted = (self._weighted(name, total) for name, total in terms.items())
            return sum(weighted, jnp.float32(0.0))

        def auxiliary(some, asked) -> dict[str, Total]:
            placed = placements(some["poses"], arrays["statics"], frames, there)
            return self.stage.totals(some, context, placed, frames, asked)

        labels = named_leaves(self.optimizer_groups(params))
        return self.stage.measured(params, context, labels, base, auxiliary)

    def describe(self) -> Description:
        """Of one hand with MANO's joints and an object; the video may have more."""
        model = self.config.model
        shapes = jax.eval_shape(
            lambda: init_scene(jax.random.key(0), model, hands={"right": MANO_NUMBERS}, frames=1)
        )
        counts = {
            name: sum(leaf.size for leaf in jax.tree.leaves(node))
            for name, node in shapes["nodes"].items()
        }
        if "background" in shapes:
            counts["background"] = sum(leaf.size for leaf in jax.tree.leaves(shapes["background"]))
        points = 2 * self.config.rays.per_frame * (model.sampler.samples + model.sampler.extra)
        width = model.sdf.width**2 * model.sdf.layers + model.color.width**2 * model.color.layers
        # Two operations per weight; value, gradient and both backward passes are six times that.
        return Description(counts, 12.0 * width * points, {"frame": ((), "int32")})

    def tables(self) -> dict[str, Table]:
        return self.stage.tables()

    def metadata(self) -> dict[str, Any]:
        return hand_off.facts(self.opened, self.video.content, self.config.model)

    def saved_form(
        self,
        initial: Mapping[str, jax.Array],
        saved: Collection[str],
        facts: Mapping[str, Any],
    ) -> dict[str, Any]:
        del saved
        hand_off.check_facts(facts, self.metadata())
        return {path: leaf for path, leaf in initial.items() if path.startswith("params/")}

    def inherited(
        self,
        restored: Mapping[str, Any],
        initial: Mapping[str, jax.Array],
        facts: Mapping[str, Any],
    ) -> tuple[dict[str, jax.Array], list[str]]:
        params = nested(restored)["params"]
        caches = jax.jit(lambda params: init_caches(params, self.config.model))(params)
        made = {f"model_state/caches/{name}": cache for name, cache in caches.items()}
        settings = self.config.checkpoint
        if settings.init_include or settings.init_exclude:
            said = "only a part of the earlier stage was taken over, so that its loss is another"
        else:
            found = self._witness(params, jax.tree.map(jnp.asarray, self.resident()))
            said = hand_off.check_witness(facts.get("witness"), jax.device_get(found))
        return {**initial, **restored, **made}, [said]

    def witness(self, state: TrainState, resident: Any) -> dict[str, float]:
        found = jax.device_get(self._witness(state.params, resident))
        return {name: float(value) for name, value in found.items()}

    @cached_property
    def _witness(self) -> Callable[[dict[str, Any], Any], dict[str, jax.Array]]:
        frames = np.flatnonzero(~self.held_out)
        return make_witness(self.config, nodes_of(self.opened.sequence), frames)

    def guards(self) -> Guards:
        return Guards(
            names=guards.NAMES,
            evaluation=guards.of_evaluations,
            watches=lambda config: guards.of_updates(self.stage.windows, self.config.balance),
        )

    def evaluate(self, state: TrainState, source: Source, layout: Layout) -> Evaluation:
        return evaluation.evaluate(self, state, source, layout)

    def overfit_verdict(self, before: Evaluation, after: Evaluation) -> Verdict:
        return guards.overfit(before.metrics, after.metrics)
