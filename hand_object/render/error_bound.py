"""Samples whose opacity error is bounded (VolSDF, Yariv et al. 2021, Algorithm 1 and eq. 11-15).

Vocabulary, per ray: z depths, s signed distances there (scene units), delta lengths of intervals,
d* a lower bound of |s| within an interval, E the bound of the error of the optical depth, beta the
width of the surface. The distances must not change faster than z does: scene units, not canonical.

Rounds are unrolled with growing static shapes, and no ray leaves early: one that has converged
draws further samples that do it no harm.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from hand_object.config import SamplerConfig
from hand_object.fields.density import laplace
from hand_object.render.sampling import importance, strata, stratified, with_values

TINY = 1e-6  # added to the distribution of new probes
FLOOR = 1e-5  # added to the final distribution
MOST_ERROR = 1e6  # the exponential of E is cut off here


def least_distance(z: jax.Array, s: jax.Array) -> jax.Array:
    """d* [R, S - 1]: the least |s| that the distances at both ends allow in between (eq. 14)."""
    delta = jnp.diff(z, axis=-1)
    a, b = jnp.abs(s[:, :-1]), jnp.abs(s[:, 1:])
    half = 0.5 * (a + b + delta)
    # Heron's formula; rounding can make a flat triangle's area slightly negative.
    area = jnp.sqrt(jnp.maximum(half * (half - delta) * (half - a) * (half - b), 0.0))
    height = 2.0 * area / jnp.maximum(delta, jnp.finfo(z.dtype).tiny)
    d = jnp.where(a + b > delta, height, 0.0)
    d = jnp.where(jnp.square(delta) + jnp.square(b) <= jnp.square(a), b, d)
    d = jnp.where(jnp.square(delta) + jnp.square(a) <= jnp.square(b), a, d)
    return jnp.where(s[:, :-1] * s[:, 1:] <= 0, 0.0, d)


def opacity_bound(z: jax.Array, s: jax.Array, beta: jax.Array) -> jax.Array:
    """[R, S - 1]: how far off the opacity can be within each interval (eq. 12).

    Args:
      beta: [R].
    """
    return _bound_of(z, s, least_distance(z, s), beta)


def _bound_of(z: jax.Array, s: jax.Array, d: jax.Array, beta: jax.Array) -> jax.Array:
    delta = jnp.diff(z, axis=-1)
    beta = beta[:, None]
    error = jnp.cumsum(jnp.exp(-d / beta) * jnp.square(delta / beta) / 4.0, axis=-1)
    depth = laplace(s[:, :-1], beta) * delta
    before = jnp.cumsum(depth, axis=-1) - depth
    return jnp.minimum(jnp.expm1(error), MOST_ERROR) * jnp.exp(-before)


def starting_beta(z: jax.Array, error: float) -> jax.Array:
    """beta+ [R]: wide enough for the bound to hold without knowing the distances (Lemma 1)."""
    squares = jnp.sum(jnp.square(jnp.diff(z, axis=-1)), axis=-1)
    return jnp.sqrt(squares / (4.0 * jnp.log1p(error)))


def smallest_beta(
    z: jax.Array, s: jax.Array, beta: jax.Array, high: jax.Array, config: SamplerConfig
) -> jax.Array:
    """[R]: beta itself where its bound is small enough, else the least one by bisection.

    Args:
      beta: [], that of the field.
      high: [R], for which the bound holds.
    """
    d = least_distance(z, s)
    low = jnp.broadcast_to(beta, high.shape)

    def holds(value):
        return jnp.max(_bound_of(z, s, d, value), axis=-1) <= config.error

    def halve(_, bounds):
        low, high = bounds
        middle = 0.5 * (low + high)
        good = holds(middle)
        return jnp.where(good, low, middle), jnp.where(good, middle, high)

    done = holds(low)
    _, found = jax.lax.fori_loop(0, config.bisections, halve, (low, jnp.maximum(high, low)))
    return jnp.where(done, low, found)


def error_bounded(
    key: jax.Array | None,
    distance: Callable[[jax.Array], jax.Array],
    near: jax.Array,
    far: jax.Array,
    beta: jax.Array,
    config: SamplerConfig,
) -> jax.Array:
    """[R, samples + extra + 1] sorted depths, the last one being `far`.

    Args:
      key: of random samples; None for evaluation.
      distance: depths [R, N] -> signed distances [R, N] in scene units.
      near, far: [R].
      beta: [] of the field.
    """
    keys = [None] * (config.rounds + 2) if key is None else jax.random.split(key, config.rounds + 2)
    z = stratified(keys[0], near, far, config.probes)
    s = distance(z)
    # The field's own beta may be wider than what any sampling needs.
    wide = starting_beta(jnp.concatenate([near[:, None], z, far[:, None]], axis=-1), config.error)
    wide = jnp.maximum(wide, beta)
    for number in range(config.rounds):
        wide = smallest_beta(z, s, beta, wide, config)
        if number == config.rounds - 1:
            break
        bound = _bound_of(z, s, least_distance(z, s), wide)
        new_z = importance(keys[number + 1], z, bound + TINY, config.probes)
        z, s = with_values(z, s, new_z, distance(new_z))
    depth = laplace(s[:, :-1], wide[:, None]) * jnp.diff(z, axis=-1)
    weights = jnp.exp(-(jnp.cumsum(depth, axis=-1) - depth)) * -jnp.expm1(-depth)
    chosen = importance(keys[-1], z, weights + FLOOR, config.samples)
    kept = _spread(keys[-1], z, config.extra)
    depths = jnp.concatenate([near[:, None], kept, chosen], axis=-1)
    return jnp.concatenate([jnp.sort(depths, axis=-1)[:, 1:], far[:, None]], axis=-1)


def _spread(key: jax.Array | None, z: jax.Array, count: int) -> jax.Array:
    """`count` of the probes [R, S], the same columns of all rays."""
    if count == 0:
        return z[:, :0]
    u = strata(None if key is None else jax.random.fold_in(key, 1), count, ())
    return z[:, jnp.minimum((u * z.shape[-1]).astype(jnp.int32), z.shape[-1] - 1)]
