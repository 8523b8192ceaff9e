"""From the fields of all nodes and the background to pixels.

Class ids of semantics: background 0, object 1, right hand 2, left hand 3. Parameters of a scene:
{"nodes": {name: …}} and, with a background field, {"background": …, "background_codes": [T, C]}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hand_object.config import FieldConfig
from hand_object.fields.background import (
    background_color,
    background_field,
    init_background,
    inverted_sphere_points,
)
from hand_object.fields.layers import Params
from hand_object.fields.positional_encoding import octave_weights
from hand_object.render.composition import compose, own_opacity
from hand_object.render.nodes import (
    NodeSamples,
    evaluate,
    init_hand,
    init_object,
    node_cache,
    sample_depths,
)
from hand_object.render.placement import Placement
from hand_object.render.sampling import strata
from training.errors import ConfigError

CLASSES = {"background": 0, "object": 1, "right": 2, "left": 3}


class Rays(NamedTuple):
    """origins, directions [F, R, 3] in the scene, unit length; frame [F] int32.

    backdrop: [F, R, 3] color behind the nodes, where there is no background field.
    """

    origins: jax.Array
    directions: jax.Array
    frame: jax.Array
    backdrop: jax.Array | None = None


class Rendered(NamedTuple):
    """Pixels [F, R, …].

    Attributes:
      color: [F, R, 3] in 0..1.
      semantics: [F, R, 4] share of each class; they sum to 1.
      masks: opacity [F, R] of each node alone.
      normal: [F, R, 3] scene normals weighted by visibility.
      depth: [F, R] along the ray, weighted by visibility.
      gradients: [F R S, 3] canonical of each node, for the eikonal term.
    """

    color: jax.Array
    semantics: jax.Array
    masks: dict[str, jax.Array]
    normal: jax.Array
    depth: jax.Array
    gradients: dict[str, jax.Array]


def init_scene(
    key: jax.Array, config: FieldConfig, *, hands: Mapping[str, int], frames: int
) -> Params:
    """Parameters of hands ({"right": numbers of its pose}), an object and the background."""
    keys = jax.random.split(key, len(hands) + 3)
    nodes = {
        name: init_hand(keys[3 + place], config, hands[name])
        for place, name in enumerate(sorted(hands))
    }
    nodes["object"] = init_object(keys[0], config, frames)
    params: Params = {"nodes": nodes}
    if config.background.kind == "inverted_sphere":
        params["background"] = init_background(keys[1], config.background)
        shape = (frames, config.background.frame_code)
        params["background_codes"] = 0.1 * jax.random.normal(keys[2], shape)
    return params


def octaves_of(name: str, config: FieldConfig, step: jax.Array | int | None) -> jax.Array | None:
    """Weights of the octaves: coarse to fine for an object in training (step given), else all."""
    if name != "object" or step is None or config.encoding.kind != "frequencies":
        return None
    return octave_weights(step, config.encoding)


def init_caches(
    params: Params, config: FieldConfig, step: jax.Array | int | None = None
) -> dict[str, jax.Array]:
    """An SDF cache of each node for the `proposal` sampler; none for the other one."""
    if config.sampler.kind != "proposal":
        return {}
    return {
        name: node_cache(node, config, octaves_of(name, config, step))
        for name, node in params["nodes"].items()
    }


def refresh_caches(
    params: Params, config: FieldConfig, caches: dict[str, jax.Array], step: jax.Array
) -> dict[str, jax.Array]:
    """The caches, made anew every `sampler.cache_every` updates."""
    if not caches:
        return caches
    return jax.lax.cond(
        step % config.sampler.cache_every == 0,
        lambda: init_caches(params, config, step),
        lambda: caches,
    )


def render(
    params: Params,
    config: FieldConfig,
    placements: Mapping[str, Placement],
    rays: Rays,
    caches: Mapping[str, jax.Array],
    key: jax.Array | None = None,
    step: jax.Array | int | None = None,
) -> Rendered:
    """Pixels of F frames with R rays each.

    Args:
      placements: of the nodes that are in these frames, by name.
      caches: of `init_caches`.
      key: of random samples (training); None: regular ones.
      step: of coarse-to-fine encodings; None: all octaves.

    Raises:
      ConfigError: no backdrop where the background is no field.
    """
    names = sorted(placements)
    sampled = {
        name: _node(
            None if key is None else jax.random.fold_in(key, CLASSES[name]),
            params["nodes"][name],
            config,
            placements[name],
            rays,
            octaves_of(name, config, step),
            caches.get(name),
        )
        for name in names
    }
    samples = {name: sampled[name].samples for name in names}
    pixels = compose([samples[name] for name in names], config.density, config.compose)
    behind = _behind(params, config, rays, key)
    shape = rays.origins.shape[:2]
    color = pixels.values[:, :3] + pixels.background[:, None] * behind
    semantics = jnp.stack(_by_class(names, pixels.weights, pixels.background), axis=-1)
    return Rendered(
        color.reshape(*shape, 3),
        semantics.reshape(*shape, len(CLASSES)),
        {name: own_opacity(samples[name], config.density).reshape(shape) for name in names},
        pixels.values[:, 3:].reshape(*shape, 3),
        pixels.depth.reshape(shape),
        {name: sampled[name].gradients for name in names},
    )


def _node(key, params, config, placement, rays, octaves, cache) -> NodeSamples:
    place = (params, config, placement, rays.origins, rays.directions)
    z = sample_depths(key, *place, octaves, cache)
    return evaluate(*place, z, octaves)


def _by_class(names: list[str], weights: jax.Array, background: jax.Array) -> list[jax.Array]:
    """The share of each class in the order of its id; zero of a node that is not there."""
    shares = {name: weights[:, place] for place, name in enumerate(names)}
    shares["background"] = background
    return [shares.get(name, jnp.zeros_like(background)) for name in CLASSES]


def _behind(params: Params, config: FieldConfig, rays: Rays, key: jax.Array | None) -> jax.Array:
    """[F R, 3] color behind all nodes."""
    if config.background.kind != "inverted_sphere":
        if rays.backdrop is None:
            raise ConfigError(
                f"background.kind = {config.background.kind!r} needs the backdrop of the rays; "
                "give their pixels of the median frame, or a constant color"
            )
        return rays.backdrop.reshape(-1, 3)
    origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
    count = config.background.samples
    key = None if key is None else jax.random.fold_in(key, CLASSES["background"])
    rho = strata(key, count, (len(origins),))[:, ::-1] / config.sphere  # near to far
    points = inverted_sphere_points(origins, directions, rho)
    codes = jnp.repeat(params["background_codes"][rays.frame], rays.origins.shape[1], axis=0)
    sigma, rgb = background_field(
        params["background"],
        config.background,
        points.reshape(-1, 4),
        jnp.repeat(directions, count, axis=0),
        jnp.repeat(codes, count, axis=0),
        config.compute,
    )
    shape = (len(origins), count)
    return background_color(sigma.reshape(shape), rgb.reshape(*shape, 3), rho)
