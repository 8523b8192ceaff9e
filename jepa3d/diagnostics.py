"""Collapse panel: what a loss curve cannot show about the features.

All functions take features of a fixed probe set, compute in float32 and return scalars or small
arrays.
`weights` selects tokens (1 foreground, 0 background): background dominates OCT volumes and can look
healthy while retina features have collapsed.

Legend: S samples (tokens or volumes), B volumes, N tokens, D feature width.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

RANK_EPSILON = 1e-7  # added to each share, as in the paper; log(0) cannot occur then
DEAD_STD = 1e-2


class FeatureSpread(NamedTuple):
    """How much features differ over samples: standard deviations (std) of their dimensions."""

    mean: jax.Array
    minimum: jax.Array
    dead_fraction: jax.Array  # share of dimensions whose std is below `DEAD_STD`
    relative: jax.Array  # rms std over rms value: 1 for centered features, 0 for collapsed ones


class Cosines(NamedTuple):
    """Mean pairwise cosine similarities; near 1 everywhere means collapse."""

    within_volume: jax.Array  # different tokens of one volume
    same_position: jax.Array  # one token position, different volumes
    between_volumes: jax.Array  # mean features of different volumes


def rank_me(features_SxD: jax.Array, centered: bool) -> jax.Array:
    """Effective rank: exponential of the entropy of normalized singular values.

    RankMe (Garrido et al. 2023), p = σ / Σσ + 1e-7. Uncentered it sees a shared mean vector,
    centered it does not: a constant plus slight noise scores about 1 uncentered and nearly D
    centered.

    Args:
        features_SxD: [samples, dim]; at least as many samples as dimensions to be comparable.
        centered: subtract the mean over samples first.

    Returns:
        float32 scalar between 1 and min(S, D).
    """
    x = features_SxD.astype(jnp.float32)
    if centered:
        x = x - x.mean(axis=0)[None]
    singular = jnp.linalg.svd(x, compute_uv=False)
    share = singular / jnp.maximum(singular.sum(), jnp.finfo(jnp.float32).tiny) + RANK_EPSILON
    return jnp.exp(-jnp.sum(share * jnp.log(share)))


def feature_spread(features_SxD: jax.Array, weights_S: jax.Array | None = None) -> FeatureSpread:
    """Per-dimension standard deviation over samples, of un-normalized features."""
    x = features_SxD.astype(jnp.float32)
    weights = _shares(weights_S, x.shape[0])
    mean_D = weights @ x
    variance_D = weights @ (x - mean_D[None]) ** 2
    std_D = jnp.sqrt(variance_D)
    power = jnp.maximum(weights @ jnp.sum(x * x, axis=-1), jnp.finfo(jnp.float32).tiny)
    return FeatureSpread(
        mean=std_D.mean(),
        minimum=std_D.min(),
        dead_fraction=jnp.mean(std_D < DEAD_STD),
        relative=jnp.sqrt(variance_D.sum() / power),
    )


def cosine_statistics(features_BxNxD: jax.Array, weights_BxN: jax.Array | None = None) -> Cosines:
    """Mean pairwise cosines without forming pairs: |Σu|² counts every pair of unit vectors.

    Args:
        features_BxNxD: [volumes, tokens, dim].
        weights_BxN: 0 or 1 per token; None for all tokens.

    Returns:
        Averages over pairs of *different* members; 0 where there is no pair.
    """
    x = features_BxNxD.astype(jnp.float32)
    weights = jnp.ones(x.shape[:2]) if weights_BxN is None else weights_BxN.astype(jnp.float32)
    unit = _unit(x) * weights[..., None]
    per_volume = jnp.einsum("BNw,BN->Bw", x, weights)
    present = (weights.sum(axis=1) > 0).astype(jnp.float32)
    volumes = _unit(per_volume) * present[:, None]
    return Cosines(
        within_volume=_pair_mean(unit, weights, axis=1),
        same_position=_pair_mean(unit, weights, axis=0),
        between_volumes=_pair_mean(volumes, present, axis=0),
    )


def _shares(weights_S: jax.Array | None, samples: int) -> jax.Array:
    weights = jnp.ones(samples) if weights_S is None else weights_S.astype(jnp.float32)
    return weights / jnp.maximum(weights.sum(), jnp.finfo(jnp.float32).tiny)


def _unit(x: jax.Array) -> jax.Array:
    norm = jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True))
    return x / jnp.maximum(norm, jnp.finfo(jnp.float32).tiny ** 0.5)


def _pair_mean(unit: jax.Array, weights: jax.Array, axis: int) -> jax.Array:
    """Mean dot product over ordered pairs of different members along `axis`, over all groups."""
    total = jnp.sum(unit.sum(axis=axis) ** 2)
    themselves = jnp.sum(unit**2)
    # Right for weights of 0 and 1 only: a member is counted once or not at all.
    counts = weights.sum(axis=axis)
    pairs = jnp.sum(counts * (counts - 1.0))
    return jnp.where(pairs > 0, (total - themselves) / jnp.maximum(pairs, 1.0), 0.0)
