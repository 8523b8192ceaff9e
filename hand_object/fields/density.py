"""From signed distance to optical depth (VolSDF, Yariv et al. 2021; NeuS, Wang et al. 2021).

Vocabulary, in scene units: sdf (negative inside), beta (width of the surface), sigma (density,
1 / unit), delta (length of an interval), tau = sigma delta (optical depth). The opacity of an
interval is 1 - exp(-tau). Density is an inverse length: it may and must exceed 1.

Kinds: `laplace`; `laplace_clamped`, sigma limited to `density.most`, for comparison only, since
thin objects can then not become opaque; `bounded_opacity`, laplace with tau bounded smoothly;
`neus`, from the distances at both ends of an interval, without a density of its own.

All values and derivatives are finite in float32 and bfloat16 for |sdf| <= 1e4 and beta >= 1e-4:
each exponential is only given arguments of the sign where it cannot overflow.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from hand_object.config import DensityConfig
from hand_object.fields.layers import soft_relu


def beta_start(config: DensityConfig) -> float:
    """The parameter for which `beta_of` gives `density.beta`."""
    return math.log(math.expm1(config.beta - config.beta_least))


def beta_of(parameter: jax.Array, config: DensityConfig) -> jax.Array:
    """beta >= `density.beta_least` of the learned parameter."""
    return config.beta_least + soft_relu(parameter)


def laplace(sdf: jax.Array, beta: jax.Array) -> jax.Array:
    """sigma: the cumulative Laplace distribution of -sdf, over beta; at most 1 / beta.

    The derivative at sdf = 0 is exact (-1 / (2 beta^2)): `where` gives the whole slope to the
    branch that it takes, while `maximum` would halve it at a tie.
    """
    outside = sdf >= 0
    positive = jnp.where(outside, sdf, 0.0)
    negative = jnp.where(outside, 0.0, sdf)
    out_value = 0.5 * jnp.exp(-positive / beta)
    in_value = 1.0 - 0.5 * jnp.exp(negative / beta)
    return jnp.where(outside, out_value, in_value) / beta


def density(sdf: jax.Array, beta: jax.Array, config: DensityConfig) -> jax.Array:
    """sigma of a point; of `neus` that of laplace, which its samplers use.

    Args:
      sdf: [...] scene units.
      beta: [] or of the shape of sdf.
    """
    sigma = laplace(sdf, beta)
    return jnp.minimum(sigma, config.most) if config.kind == "laplace_clamped" else sigma


def interval_density(
    sdf: jax.Array, z: jax.Array, beta: jax.Array, config: DensityConfig
) -> jax.Array:
    """Density [..., S] that holds from each sample to the next.

    Args:
      sdf: [..., S] at the samples.
      z: [..., S + 1] depths of the samples and the end of the last interval.
      beta: [].
    """
    if config.kind != "neus":
        return density(sdf, beta, config)
    tau = neus_depth(sdf[..., :-1], sdf[..., 1:], beta)
    lengths = jnp.maximum(jnp.diff(z[..., :-1], axis=-1), jnp.finfo(z.dtype).tiny ** 0.5)
    # The last sample has no next one.
    return jnp.concatenate([tau / lengths, jnp.zeros_like(sdf[..., :1])], axis=-1)


def neus_depth(near: jax.Array, far: jax.Array, beta: jax.Array) -> jax.Array:
    """tau of an interval of NeuS: its opacity is (F(near) - F(far)) / F(near), at least 0.

    F is the logistic function of sdf / beta; the quotient is taken between logarithms, since F
    itself is 0 deep inside.
    """
    fall = soft_relu(-far / beta) - soft_relu(-near / beta)
    return jnp.where(fall > 0, fall, 0.0)


def optical_depth(sigma: jax.Array, delta: jax.Array, config: DensityConfig) -> jax.Array:
    """tau of intervals; `bounded_opacity` keeps it below `density.depth_most`."""
    tau = sigma * delta
    if config.kind != "bounded_opacity":
        return tau
    return -config.depth_most * jnp.expm1(-tau / config.depth_most)


def opacity(tau: jax.Array) -> jax.Array:
    """alpha = 1 - exp(-tau), accurate for small tau."""
    return -jnp.expm1(-tau)
