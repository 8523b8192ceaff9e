"""The signed distance of a node in its canonical frame, with features and normal (IGR, VolSDF).

Distances are canonical units, negative inside. The network starts as a sphere of `sdf.radius`, see
`sphere_start`. Its gradient comes from one reverse pass that shares the forward pass with distance
and features: the loss is then differentiated through that pass, half the work of three forward
tangents that carry the features.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hand_object.config import FieldConfig
from hand_object.fields import layers as nets
from hand_object.fields.layers import Params
from hand_object.fields.positional_encoding import encode
from hand_object.fields.sphere_start import narrow_sphere, wide_sphere
from hand_object.fields.triplane import init_planes, interpolate


def init_sdf(key: jax.Array, config: FieldConfig) -> Params:
    """Parameters of a sphere: {"layers": …} and, with a tri-plane, {"planes": …}."""
    if config.encoding.kind == "triplane":
        return {"layers": narrow_sphere(key, config), "planes": init_planes(config.encoding)}
    return {"layers": wide_sphere(key, config)}


def _last_hidden(
    params: Params, config: FieldConfig, x: jax.Array, octaves: jax.Array | None
) -> jax.Array:
    if config.encoding.kind == "triplane":
        encoded = jnp.concatenate([x, interpolate(params["planes"], x)], axis=-1)
    else:
        encoded = encode(x, config.encoding.frequencies, octaves)
    return nets.hidden(
        params["layers"],
        encoded,
        skip=config.sdf.skip,
        sharpness=config.sdf.sharpness,
        compute=config.compute,
    )


def signed_distance(
    params: Params, config: FieldConfig, x: jax.Array, octaves: jax.Array | None = None
) -> jax.Array:
    """[N, 3] canonical points -> [N] canonical units, without features.

    Args:
      octaves: weights of the octaves, see `positional_encoding.octave_weights`; None: all of them.
    """
    h = _last_hidden(params, config, x, octaves)
    return _head(params, h, slice(0, 1), config.compute)[:, 0]


def sdf_feature_normal(
    params: Params, config: FieldConfig, x: jax.Array, octaves: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[N, 3] canonical points -> distance [N], features [N, features], gradient [N, 3].

    The gradient is not normalized: its length is what the eikonal term is about.
    """

    def distance(points):
        h = _last_hidden(params, config, points, octaves)
        features = _head(params, h, slice(1, None), config.compute)
        return _head(params, h, slice(0, 1), config.compute)[:, 0], features

    value, pull_back, features = jax.vjp(distance, x, has_aux=True)
    (gradient,) = pull_back(jnp.ones_like(value))
    return value, features, gradient


def _head(params: Params, h: jax.Array, columns: slice, compute: str) -> jax.Array:
    """Some outputs of the last layer: the reverse pass needs only the distance."""
    head = nets.last(params["layers"])
    part = {
        "direction": head["direction"][:, columns],
        "gain": head["gain"][columns],
        "bias": head["bias"][columns],
    }
    return nets.apply(part, h, compute)
