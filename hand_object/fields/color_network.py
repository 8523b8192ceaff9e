"""The color of a canonical point (HOLD, "pose" mode: no view direction).

Inputs in this order: point (3), normal (3), pose code, features of the SDF network, frame code.
The input width is derived from the config and the node, 270 for a hand and 302 for an object of
the `seed` preset.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hand_object.config import FieldConfig
from hand_object.fields import layers as nets
from hand_object.fields.layers import Params


def color_inputs(config: FieldConfig, *, frame_code: bool) -> int:
    """Width of the first layer; objects have a frame code."""
    codes = config.color.pose_code + (config.color.frame_code if frame_code else 0)
    return 3 + 3 + codes + config.sdf.features


def init_color(key: jax.Array, config: FieldConfig, *, frame_code: bool) -> Params:
    """Layers "0", "1", … down to three colors."""
    color = config.color
    keys = jax.random.split(key, color.layers + 1)
    inputs = color_inputs(config, frame_code=frame_code)
    sizes = [*nets.widths(inputs, color.width, color.layers, None), (color.width, 3)]
    return {
        str(number): nets.normal_dense(
            layer_key, *size, gain=1.0 if number == color.layers else 2.0**0.5
        )
        for number, (layer_key, size) in enumerate(zip(keys, sizes))
    }


def color(
    params: Params,
    config: FieldConfig,
    x: jax.Array,
    normal: jax.Array,
    pose_code: jax.Array,
    features: jax.Array,
    frame_code: jax.Array | None = None,
) -> jax.Array:
    """RGB [N, 3] in 0..1.

    Args:
      x: [N, 3] canonical.
      normal: [N, 3] of unit length, in the scene, so that a turning hand may change its shade.
      pose_code: [N, pose_code], zeros for objects.
      features: [N, features] of the SDF network.
      frame_code: [N, frame_code] of objects, None of hands.
    """
    codes = [] if frame_code is None else [frame_code]
    inputs = jnp.concatenate([x, normal, pose_code, features, *codes], axis=-1)
    h = nets.hidden(params, inputs, skip=None, sharpness=None, compute=config.compute)
    return jax.nn.sigmoid(nets.apply(nets.last(params), h, config.compute))


def init_pose_code(key: jax.Array, pose_numbers: int, config: FieldConfig) -> Params:
    """The linear map of a hand pose (axis-angles of the fingers in one row) to its code."""
    scale = pose_numbers**-0.5
    shape = (pose_numbers, config.color.pose_code)
    return {"kernel": scale * jax.random.normal(key, shape), "bias": jnp.zeros(shape[1])}


def pose_code(params: Params, pose: jax.Array) -> jax.Array:
    """[F, pose numbers] rad -> [F, pose_code]."""
    product = jnp.dot(pose / jnp.pi, params["kernel"], precision=jax.lax.Precision.HIGHEST)
    return product + params["bias"][None]
