"""What is behind the nodes: a field outside of the bounding sphere, or the median of the frames.

The field is NeRF++ (Zhang et al. 2020): a point at radius r >= R on a ray is given to the network
as its direction from the center and rho = 1 / r. The original finds that direction by a rotation
about (origin x exit point), which is 0 / 0 for rays through the center. The point at radius r is
simply where the ray is then, so no axis is needed:

    direction = rho o + (rho t_mid + sqrt(1 - rho^2 |p_mid|^2)) d,

with origin o, unit direction d, t_mid = -o.d and p_mid = o + t_mid d, the point that is nearest to
the center. It is exact for a camera at the center, and tends to d for rho -> 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from hand_object.config import BackgroundConfig
from hand_object.fields import layers as nets
from hand_object.fields.layers import Params
from hand_object.fields.positional_encoding import encode
from training.errors import InputError

SHARPNESS = 100.0


def inverted_sphere_points(origins: jax.Array, directions: jax.Array, rho: jax.Array) -> jax.Array:
    """[R, 3] rays and [R, S] inverse radii, 0..1 / R -> [R, S, 4]: direction from the center, rho.

    The rays must meet the sphere; for others the point that is nearest to the center stands in.
    """
    t_mid = -jnp.sum(origins * directions, axis=-1, keepdims=True)
    p_mid = origins + t_mid * directions
    inner = 1.0 - jnp.square(rho) * jnp.sum(jnp.square(p_mid), axis=-1, keepdims=True)
    # A tangent ray has an infinite derivative here: `where` before the root keeps it finite.
    root = jnp.where(inner > 0, jnp.sqrt(jnp.where(inner > 0, inner, 1.0)), 0.0)
    along = rho * t_mid + root
    unit = rho[..., None] * origins[:, None] + along[..., None] * directions[:, None]
    return jnp.concatenate([unit, rho[..., None]], axis=-1)


def init_background(key: jax.Array, config: BackgroundConfig) -> Params:
    """{"density": layers, "color": layers}."""
    keys = jax.random.split(key, config.layers + 3)
    sizes = [
        *nets.widths(config.inputs, config.width, config.layers, config.skip),
        (config.width, 1 + config.features),
    ]
    views = 3 + 6 * config.view_frequencies + config.frame_code + config.features
    return {
        "density": {str(n): nets.normal_dense(keys[n], *size) for n, size in enumerate(sizes)},
        "color": {
            "0": nets.normal_dense(keys[-2], views, config.color_width),
            "1": nets.normal_dense(keys[-1], config.color_width, 3, gain=1.0),
        },
    }


def background_field(
    params: Params,
    config: BackgroundConfig,
    points: jax.Array,
    directions: jax.Array,
    frame_code: jax.Array,
    compute: str = "float32",
) -> tuple[jax.Array, jax.Array]:
    """Density [N] (in units of 1 / rho) and RGB [N, 3].

    Args:
      points: [N, 4] of `inverted_sphere_points`.
      directions: [N, 3] of the rays, unit length.
      frame_code: [N, frame_code] learned numbers of the frame.
    """
    inputs = jnp.concatenate([encode(points, config.frequencies), frame_code], axis=-1)
    stack = params["density"]
    h = nets.hidden(stack, inputs, skip=config.skip, sharpness=SHARPNESS, compute=compute)
    out = nets.apply(nets.last(stack), h, compute)
    view = encode(directions, config.view_frequencies)
    seen = jnp.concatenate([view, frame_code, out[:, 1:]], axis=-1)
    h = nets.hidden(params["color"], seen, skip=None, sharpness=None, compute=compute)
    rgb = jax.nn.sigmoid(nets.apply(nets.last(params["color"]), h, compute))
    return jnp.abs(out[:, 0]), rgb


def background_color(sigma: jax.Array, rgb: jax.Array, rho: jax.Array) -> jax.Array:
    """Composited RGB [R, 3] of samples [R, S] from near (large rho) to far; the last is opaque."""
    tau = sigma[:, :-1] * (rho[:, :-1] - rho[:, 1:])
    before = jnp.cumsum(tau, axis=-1)
    reach = jnp.exp(-jnp.concatenate([jnp.zeros_like(before[:, :1]), before], axis=-1))
    alpha = jnp.concatenate([-jnp.expm1(-tau), jnp.ones_like(tau[:, :1])], axis=-1)
    return jnp.sum((reach * alpha)[..., None] * rgb, axis=1)


def median_frame(frames: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """The scene without its nodes, for a fixed camera: the median of each pixel where it is free.

    Args:
      frames: [T, H, W, 3] uint8 or float.
      foreground: [T, H, W] bool, where a node hides the background.

    Returns:
      [H, W, 3] float32 in the range of the frames; a pixel that is never free takes the color of
      the nearest one that is.

    Raises:
      InputError: no pixel of any frame shows the background.
    """
    if foreground.all():
        raise InputError(
            "every pixel of every mask is hand or object, so no background can be found; "
            "check the masks, or set background.kind = 'constant'"
        )
    height, width = frames.shape[1:3]
    result = np.zeros((height, width, 3), np.float32)
    for row in range(height):  # row by row: a float copy of a whole video would be large
        values = np.where(foreground[:, row, :, None], np.nan, frames[:, row].astype(np.float32))
        free = ~foreground[:, row].all(axis=0)
        result[row, free] = np.nanmedian(values[:, free], axis=0)
    hidden = foreground.all(axis=0)
    if hidden.any():
        nearest = ndimage.distance_transform_edt(
            hidden, return_distances=False, return_indices=True
        )
        rows, columns = np.asarray(nearest)
        result = result[rows, columns]
    return result
