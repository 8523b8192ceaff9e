"""One node along rays: where it is sampled, and its density and color there.

Parameters of a node: {"sdf": …, "color": …, "beta": []}, of a hand {"pose_code": …}, of an object
{"frame_codes": [T, C]}. Letters: F frames, R rays of each, S samples of each; networks see all
points of a batch in one row.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hand_object.config import FieldConfig
from hand_object.fields.color_network import color, init_color, init_pose_code, pose_code
from hand_object.fields.density import beta_of, beta_start, interval_density
from hand_object.fields.layers import Params
from hand_object.fields.sdf_network import init_sdf, sdf_feature_normal, signed_distance
from hand_object.render.composition import Samples
from hand_object.render.error_bound import error_bounded
from hand_object.render.placement import (
    Canonical,
    HandPlacement,
    ObjectPlacement,
    Placement,
    canonical,
    interval,
)
from hand_object.render.rays import common, sphere_interval
from hand_object.render.sdf_cache import build_cache, lookup, proposed

HIGHEST = jax.lax.Precision.HIGHEST


class NodeSamples(NamedTuple):
    """samples: of F R rays, values RGB and scene normal; gradients [F R S, 3], canonical."""

    samples: Samples
    gradients: jax.Array


def init_hand(key: jax.Array, config: FieldConfig, pose_numbers: int) -> Params:
    """A hand whose pose is given by so many numbers (three per joint)."""
    keys = jax.random.split(key, 3)
    return {
        "sdf": init_sdf(keys[0], config),
        "color": init_color(keys[1], config, frame_code=False),
        "beta": jnp.float32(beta_start(config.density)),
        "pose_code": init_pose_code(keys[2], pose_numbers, config),
    }


def init_object(key: jax.Array, config: FieldConfig, frames: int) -> Params:
    """An object seen in so many frames."""
    keys = jax.random.split(key, 3)
    return {
        "sdf": init_sdf(keys[0], config),
        "color": init_color(keys[1], config, frame_code=True),
        "beta": jnp.float32(beta_start(config.density)),
        "frame_codes": 0.1 * jax.random.normal(keys[2], (frames, config.color.frame_code)),
    }


def node_cache(params: Params, config: FieldConfig, octaves: jax.Array | None) -> jax.Array:
    """[cells, cells, cells] canonical distances of a node, for the `proposal` sampler."""
    return build_cache(
        lambda x: signed_distance(params["sdf"], config, x, octaves), config.sampler.cache
    )


def scene_distance(
    params: Params,
    config: FieldConfig,
    placement: Placement,
    x: jax.Array,
    octaves: jax.Array | None = None,
    cache: jax.Array | None = None,
) -> jax.Array:
    """Signed distances [F, N] in scene units of scene points [F, N, 3].

    Args:
      cache: asked in place of the network where it is given.
    """
    place = canonical(placement, x, config.skinning)
    flat = place.x.reshape(-1, 3)
    if cache is not None:
        values = lookup(cache, flat)
    else:
        values = signed_distance(params["sdf"], config, flat, octaves)
    return _in_scene(values, place)


def _in_scene(distance: jax.Array, place: Canonical) -> jax.Array:
    """Canonical distances [F N] -> [F, N] scene units; far away those of the template."""
    scene = distance.reshape(place.x.shape[:2]) * place.unit[:, None]
    if place.beyond is None or place.template is None:
        return scene
    return jnp.where(place.beyond, place.template, scene)


def sample_depths(
    key: jax.Array | None,
    params: Params,
    config: FieldConfig,
    placement: Placement,
    origins: jax.Array,
    directions: jax.Array,
    octaves: jax.Array | None = None,
    cache: jax.Array | None = None,
) -> jax.Array:
    """[F R, S + 1] sorted depths for rays [F, R, 3], without gradient."""
    frozen = jax.lax.stop_gradient((params, placement, origins, directions))
    params, placement, origins, directions = frozen
    frames, rays = origins.shape[:2]
    flat_o, flat_d = origins.reshape(-1, 3), directions.reshape(-1, 3)
    bounds = interval(placement, origins, directions)
    near, far = common(
        (bounds[0].reshape(-1), bounds[1].reshape(-1)),
        sphere_interval(flat_o, flat_d, config.sphere),
    )

    def distance(z):
        x = flat_o[:, None] + z[..., None] * flat_d[:, None]
        x = x.reshape(frames, rays * z.shape[-1], 3)
        return scene_distance(params, config, placement, x, octaves, cache).reshape(z.shape)

    sampler = proposed if cache is not None else error_bounded
    beta = beta_of(params["beta"], config.density)
    return jax.lax.stop_gradient(sampler(key, distance, near, far, beta, config.sampler))


def evaluate(
    params: Params,
    config: FieldConfig,
    placement: Placement,
    origins: jax.Array,
    directions: jax.Array,
    z: jax.Array,
    octaves: jax.Array | None = None,
) -> NodeSamples:
    """Density, color and normal at depths z [F R, S + 1] of rays [F, R, 3]."""
    frames, rays = origins.shape[:2]
    count = z.shape[-1] - 1
    depths = z[:, :-1].reshape(frames, rays, count, 1)
    x = origins[:, :, None] + depths * directions[:, :, None]
    place = canonical(placement, x.reshape(frames, rays * count, 3), config.skinning)
    points = place.x.reshape(-1, 3)
    distance, features, gradients = sdf_feature_normal(params["sdf"], config, points, octaves)
    normals = scene_normals(gradients, place.inverse.reshape(-1, 3, 3))
    codes = _codes(params, config, placement, rays * count)
    rgb = color(params["color"], config, points, normals, codes[0], features, codes[1])
    sdf = _in_scene(distance, place).reshape(frames * rays, count)
    sigma = interval_density(sdf, z, beta_of(params["beta"], config.density), config.density)
    values = jnp.concatenate([rgb, normals], axis=-1).reshape(frames * rays, count, 6)
    return NodeSamples(Samples(z, sigma, values), gradients)


def scene_normals(gradients: jax.Array, inverse: jax.Array) -> jax.Array:
    """Unit normals [N, 3] in the scene of canonical gradients [N, 3]; see `Canonical.inverse`."""
    normals = jnp.einsum("ni,nij->nj", gradients, inverse, precision=HIGHEST)
    square = jnp.sum(jnp.square(normals), axis=-1, keepdims=True)
    return normals * jax.lax.rsqrt(jnp.maximum(square, 1e-20))


def _codes(
    params: Params, config: FieldConfig, placement: Placement, repeats: int
) -> tuple[jax.Array, jax.Array | None]:
    """Pose code and frame code of each point, in the order of the frames."""
    if isinstance(placement, HandPlacement):
        return jnp.repeat(pose_code(params["pose_code"], placement.pose), repeats, axis=0), None
    assert isinstance(placement, ObjectPlacement)
    frame_codes = jnp.repeat(params["frame_codes"][placement.frame], repeats, axis=0)
    return jnp.zeros((len(frame_codes), config.color.pose_code)), frame_codes
