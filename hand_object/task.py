"""What to learn: fields of a hand, an object and a background whose renderings look like a video.

Parameters: `nodes` (a field for each hand and the object, see `render.nodes`), `poses` (tables of
every frame) and, on request, `background` with `background_codes`. Examples are numbers of frames;
pictures and masks stay on the devices, and pixels are drawn there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hand_object import evaluation, guards
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
from hand_object.losses import fields, pictures, poses
from hand_object.losses.terms import loss_terms, mean_of
from hand_object.render.pixels import box_counts, draw_pixels, pixel_rays, pixel_values
from hand_object.render.scene import Rendered, init_caches, init_scene, octaves_of, render
from hand_object.render.scene_placement import Statics, placements, start_tables, statics_of
from training.capabilities import Cadence, Guards, Refreshable
from training.loss import Batch, Context, LossOutput, LossTerm, Total
from training.mesh import Layout
from training.optimizer import FROZEN, label_by_rules
from training.source import Source, Sources
from training.state import TrainState
from training.task import Task
from training.verdict import Description, Evaluation, Verdict

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
class HandObjectTask(Task, Refreshable):
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
    def loss_terms(self) -> Mapping[str, LossTerm]:  # type: ignore[override]
        masks = bool((self.opened.masks != UNKNOWN).any())
        return loss_terms(self.config.losses, masks=masks, hands=bool(self.opened.hands))

    @cached_property
    def refresh_cadence(self) -> Cadence | None:  # type: ignore[override]
        sampler = self.config.model.sampler
        return Cadence(sampler.cache_every) if sampler.kind == "proposal" else None

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
        return params, {"caches": init_caches(params, model, 0)}

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
        arrays, frames = context.resident, batch["frame"]
        there = arrays["there"][frames]
        pixels = self._pixels(arrays, frames, context.update_key, batch["position"])
        wanted, classes = pixel_values(arrays, frames, pixels)
        placed = placements(params["poses"], arrays["statics"], frames, there)
        rendered = render(
            params,
            self.config.model,
            placed,
            pixel_rays(arrays, frames, pixels),
            context.model_state["caches"],
            jax.random.fold_in(key, 0),
            context.applied,
        )
        weight = pictures.explained(classes, there)
        terms = {
            "rgb": pictures.rgb(rendered.color, wanted, weight),
            "mask": pictures.mask(rendered.semantics, classes, weight),
            "sparse": pictures.sparse(rendered.masks, classes, weight),
        }
        terms |= self._field_terms(params, context, rendered, there, key)
        terms["poses"] = poses.corrections(params["poses"], arrays["start_poses"])
        error = jnp.square(rendered.color - wanted).mean(axis=-1) * weight
        metrics = {"squared_error": Total(jnp.sum(error), jnp.sum(weight))}
        return LossOutput(
            terms={name: terms[name] for name in self.loss_terms},
            model_state=context.model_state,
            metrics=metrics,
        )

    def _pixels(self, arrays, frames, update_key, positions) -> jax.Array:
        """[F, R, 2]; drawn from the seed and the position of each example."""
        boxes = arrays["boxes"][frames]
        names = nodes_of(self.opened.sequence)
        counts = box_counts(self.config.rays, len(names), "object" in names)
        size = self.opened.sequence.size

        def one(position, own):
            own_key = jax.random.fold_in(update_key, position)
            return draw_pixels(own_key, own, counts, self.config.rays.per_frame, size)

        return jax.vmap(one)(positions, boxes)

    def _field_terms(
        self, params, context: Context, rendered: Rendered, there, key
    ) -> dict[str, Total]:
        model, templates = self.config.model, context.resident["templates"]
        eikonal, hands = [], []
        for number, (name, gradients) in enumerate(sorted(rendered.gradients.items())):
            own = jax.random.fold_in(key, 1 + number)
            node = params["nodes"][name]["sdf"]
            frames = pictures.node_weights([name], there)[name]
            weight = jnp.repeat(frames, len(gradients) // len(there))
            octaves = octaves_of(name, model, context.applied)
            eikonal.append(fields.eikonal(gradients, weight))
            eikonal.append(fields.eikonal_anywhere(own, node, model, octaves))
            if name in templates and self.config.losses.template:
                chosen = jax.random.fold_in(own, 0)
                hands.append(fields.template(chosen, node, model, **templates[name]))
        return {"eikonal": mean_of(eikonal), "template": mean_of(hands)}

    def refresh(
        self, state: TrainState, context: Context, batch: Batch
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """The SDF caches of the fields as they are now."""
        del batch
        caches = init_caches(state.params, self.config.model, context.applied)
        least = {f"least_distance/{name}": jnp.min(cache) for name, cache in caches.items()}
        return replace(state, model_state=state.model_state | {"caches": caches}), least

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

    def guards(self) -> Guards:
        return Guards(names=guards.NAMES, evaluation=guards.of_evaluations)

    def evaluate(self, state: TrainState, source: Source, layout: Layout) -> Evaluation:
        return evaluation.evaluate(self, state, source, layout)

    def overfit_verdict(self, before: Evaluation, after: Evaluation) -> Verdict:
        return guards.overfit(before.metrics, after.metrics)
