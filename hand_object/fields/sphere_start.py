"""Networks that are the signed distance of a sphere before they have learned anything.

`wide_sphere` is the geometric initialization of SAL (Atzmon and Lipman 2020) and IGR (Gropp et al.
2020): with random weights the mean of many rectified units is about |x|. It needs width, since its
error falls with the square root of it. `narrow_sphere` spreads the directions of the first layer
evenly and lets the layers after it pass their units on, so that 32 units are enough: the mean of
max(w.x, 0) over all unit vectors w is |x| / 4.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from hand_object.config import FieldConfig
from hand_object.fields import layers as nets
from hand_object.fields.layers import Params

NOISE = 0.1  # of `narrow_sphere`, against the usual size of weights


def wide_sphere(key: jax.Array, config: FieldConfig) -> Params:
    """Layers "0", "1", … of a network on an encoding by frequencies."""
    sdf, inputs = config.sdf, config.encoding.width
    keys = jax.random.split(key, sdf.layers + 1)
    stack = {}
    for number, (fan_in, fan_out) in enumerate(
        nets.widths(inputs, sdf.width, sdf.layers, sdf.skip)
    ):
        kernel = math.sqrt(2.0 / fan_out) * jax.random.normal(keys[number], (fan_in, fan_out))
        if number in (0, sdf.skip):
            # Waves would fold the sphere; they join once their weights have moved from zero.
            kernel = kernel.at[fan_in - (inputs - 3) :].set(0.0)
        stack[str(number)] = nets.dense(kernel, jnp.zeros(fan_out))
    mean = math.sqrt(math.pi / sdf.width)
    stack[str(sdf.layers)] = _output(keys[-1], config, mean)
    return stack


def narrow_sphere(key: jax.Array, config: FieldConfig) -> Params:
    """Layers "0", "1", … of a network on a tri-plane, whose coefficients start at zero."""
    sdf = config.sdf
    keys = jax.random.split(key, sdf.layers + 1)
    rest = math.sqrt(2.0 / sdf.width) * jax.random.normal(
        keys[0], (config.encoding.width - 3, sdf.width)
    )
    stack = {"0": nets.dense(jnp.concatenate([even_directions(sdf.width), rest]), 0 * rest[0])}
    for number in range(1, sdf.layers):
        noise = jax.random.normal(keys[number], (sdf.width, sdf.width)) / math.sqrt(sdf.width)
        stack[str(number)] = nets.dense(jnp.eye(sdf.width) + NOISE * noise, jnp.zeros(sdf.width))
    stack[str(sdf.layers)] = _output(keys[-1], config, 4.0 / sdf.width)
    return stack


def _output(key: jax.Array, config: FieldConfig, mean: float) -> nets.Layer:
    """A multiple of the mean of all units, less the radius; features start like the distance."""
    sdf = config.sdf
    noise = 1e-4 * jax.random.normal(key, (sdf.width, 1 + sdf.features))
    return nets.dense(mean + noise, jnp.full(1 + sdf.features, -sdf.radius, jnp.float32))


def even_directions(count: int) -> jax.Array:
    """[3, count] unit vectors, spread evenly over the sphere along a spiral."""
    index = jnp.arange(count, dtype=jnp.float32) + 0.5
    height = 1.0 - 2.0 * index / count
    turn = jnp.pi * (1.0 + 5.0**0.5) * index
    ring = jnp.sqrt(1.0 - height**2)
    return jnp.stack([ring * jnp.cos(turn), ring * jnp.sin(turn), height])
