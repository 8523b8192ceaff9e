"""The base of the loss: what acts throughout, in every stage. Pictures, masks, fields and poses.

Letters: F frames of the batch, R rays of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hand_object.config import Config
from hand_object.losses import fields, pictures, poses
from hand_object.losses.terms import mean_of
from hand_object.render.pixels import box_counts, draw_pixels, pixel_rays, pixel_values
from hand_object.render.placement import Placement
from hand_object.render.scene import Rendered, octaves_of, render
from hand_object.render.scene_placement import placements
from training.loss import Batch, Context, Total


class Base(NamedTuple):
    """Terms without coefficients, where the nodes are, and what else to log."""

    terms: dict[str, Total]
    placed: dict[str, Placement]
    metrics: dict[str, Total]


def base_terms(
    config: Config,
    nodes: Sequence[str],
    params: dict[str, Any],
    context: Context,
    batch: Batch,
    key: jax.Array,
) -> Base:
    """Of one batch.

    Args:
      nodes: of `nodes_of`, in the order of their boxes.
    """
    arrays, frames = context.resident, batch["frame"]
    there = arrays["there"][frames]
    pixels = _pixels(config, nodes, arrays, frames, context.update_key, batch["position"])
    wanted, classes = pixel_values(arrays, frames, pixels)
    placed = placements(params["poses"], arrays["statics"], frames, there)
    rendered = render(
        params,
        config.model,
        placed,
        pixel_rays(arrays, frames, pixels),
        context.model_state["caches"],
        jax.random.fold_in(key, 0),
        config.coarse_step(context.applied),
    )
    weight = pictures.explained(classes, there)
    terms = {
        "rgb": pictures.rgb(rendered.color, wanted, weight),
        "mask": pictures.mask(rendered.semantics, classes, weight),
        "sparse": pictures.sparse(rendered.masks, classes, weight),
    }
    terms |= _field_terms(config, params, context, rendered, there, key)
    terms["poses"] = poses.corrections(params["poses"], arrays["start_poses"])
    error = jnp.square(rendered.color - wanted).mean(axis=-1) * weight
    return Base(terms, placed, {"squared_error": Total(jnp.sum(error), jnp.sum(weight))})


def _pixels(config: Config, nodes, arrays, frames, update_key, positions) -> jax.Array:
    """[F, R, 2]; drawn from the seed and the position of each example."""
    boxes = arrays["boxes"][frames]
    counts = box_counts(config.rays, len(nodes), "object" in nodes)
    height, width = arrays["images"].shape[1:3]

    def one(position, own):
        own_key = jax.random.fold_in(update_key, position)
        return draw_pixels(own_key, own, counts, config.rays.per_frame, (height, width))

    return jax.vmap(one)(positions, boxes)


def _field_terms(
    config: Config, params, context: Context, rendered: Rendered, there, key
) -> dict[str, Total]:
    model, templates = config.model, context.resident["templates"]
    eikonal, hands = [], []
    for number, (name, gradients) in enumerate(sorted(rendered.gradients.items())):
        own = jax.random.fold_in(key, 1 + number)
        node = params["nodes"][name]["sdf"]
        frames = pictures.node_weights([name], there)[name]
        weight = jnp.repeat(frames, len(gradients) // len(there))
        octaves = octaves_of(name, model, config.coarse_step(context.applied))
        eikonal.append(fields.eikonal(gradients, weight))
        eikonal.append(fields.eikonal_anywhere(own, node, model, octaves))
        if name in templates and config.losses.template:
            chosen = jax.random.fold_in(own, 0)
            hands.append(fields.template(chosen, node, model, **templates[name]))
    return {"eikonal": mean_of(eikonal), "template": mean_of(hands)}
