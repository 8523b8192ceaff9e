"""A grid of signed distances, asked in place of the network where samples are only proposed.

The grid [cells, cells, cells] (x, y, z) covers the cube |x| <= HALF_SIDE of the canonical frame, a
value on every corner (its ends lie on the faces of the cube). It is made anew on a cadence.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from hand_object.config import SamplerConfig
from hand_object.fields.density import laplace
from hand_object.fields.triplane import HALF_SIDE
from hand_object.render.sampling import importance, stratified

FLOOR = 1e-3  # share of the weights that is spread evenly: nothing stays unseen for good


def build_cache(distance: Callable[[jax.Array], jax.Array], cells: int) -> jax.Array:
    """[cells, cells, cells] of `distance`, which takes [N, 3] to [N].

    Slab by slab, whose points are made on the way: all of them would be a large constant of the
    program.
    """
    line = jnp.linspace(-HALF_SIDE, HALF_SIDE, cells)
    rest = jnp.stack(jnp.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)

    def slab(x: jax.Array) -> jax.Array:
        first = jnp.full((cells * cells, 1), x)
        return distance(jnp.concatenate([first, rest], axis=-1))

    return jax.lax.stop_gradient(jax.lax.map(slab, line)).reshape(cells, cells, cells)


def refreshed(
    cache: jax.Array, step: jax.Array, every: int, distance: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """The cache, made anew where `step` is a multiple of `every`."""
    make = lambda: build_cache(distance, cache.shape[0])  # noqa: E731
    return jax.lax.cond(step % every == 0, make, lambda: cache)


def lookup(cache: jax.Array, x: jax.Array) -> jax.Array:
    """[N, 3] canonical -> [N] trilinear; outside of the cube its distance is added."""
    cells = cache.shape[0]
    inside = jnp.clip(x, -HALF_SIDE, HALF_SIDE)
    beyond = jnp.linalg.norm(x - inside, axis=-1)
    position = (inside + HALF_SIDE) * ((cells - 1) / (2.0 * HALF_SIDE))
    first = jnp.clip(position.astype(jnp.int32), 0, cells - 2)
    share = position - first
    value = jnp.zeros(len(x), cache.dtype)
    flat = cache.reshape(-1)
    for corner in ((a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)):
        steps = jnp.array(corner)[None]
        index = first + steps
        weights = jnp.where(steps == 1, share, 1.0 - share)
        row = (index[:, 0] * cells + index[:, 1]) * cells + index[:, 2]
        value = value + jnp.prod(weights, axis=-1) * flat[row]
    return value + beyond


def proposed(
    key: jax.Array | None,
    distance: Callable[[jax.Array], jax.Array],
    near: jax.Array,
    far: jax.Array,
    beta: jax.Array,
    config: SamplerConfig,
) -> jax.Array:
    """[R, samples + 1] sorted depths, the last one being `far`.

    Args:
      key: of random samples; None for evaluation.
      distance: depths [R, probes] -> cached distances [R, probes] in scene units.
      near, far: [R].
      beta: [] of the field. Probes are too far apart for a thin surface, so the width of one
        step is the least that is used here.
    """
    keys = (None, None) if key is None else jax.random.split(key)
    z = stratified(keys[0], near, far, config.probes)
    step = (far - near) / config.probes
    edges = near[:, None] + step[:, None] * jnp.arange(config.probes + 1, dtype=z.dtype)[None]
    width = jnp.maximum(jnp.maximum(beta, step), jnp.finfo(z.dtype).eps)[:, None]
    depth = laplace(distance(z), width) * step[:, None]
    weights = jnp.exp(-(jnp.cumsum(depth, axis=-1) - depth)) * -jnp.expm1(-depth)
    even = FLOOR / config.probes
    chosen = importance(keys[1], edges, weights + even, config.samples)
    return jnp.concatenate([chosen, far[:, None]], axis=-1)
