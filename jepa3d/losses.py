"""Losses and reference levels of joint-embedding prediction.

A JEPA loss alone says little: targets move, and collapse lowers it. So it is compared with the loss
of two baselines that predict an average; *skill* is 1 - loss / loss of the baseline:

* `baseline_mean`: predict the mean target of the batch, one vector for all tokens;
* `baseline_position`: predict the running mean target of each token position. OCT volumes are
  spatially aligned, so this is the honest one.

Every quantity is a `Total`, sum and weight, so that micro-batches and padded samples add up.

Legend: B batch, N tokens of the grid, K context tokens, T target tokens, D feature width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jepa3d.config import LossConfig
from jepa3d.model.jepa import Prediction, SetPrediction
from jepa3d.model.patches import gather_tokens
from training.loss import Total


def added(parts: Sequence[Total]) -> Total:
    """Sum over mask sets, at least one: every set counts the same."""
    return Total(reduce(add, (m.sum for m in parts)), reduce(add, (m.weight for m in parts)))


class PositionalMean(NamedTuple):
    """Running mean of normalized targets per token position."""

    mean_NxD: jax.Array  # float32
    updates: jax.Array  # int32 scalar; 0: nothing seen yet


class JepaLoss(NamedTuple):
    """Per mask set: the loss, the dense loss (or None) and the baselines; then the new state."""

    prediction: tuple[Total, ...]
    dense: tuple[Total | None, ...]
    baseline_mean: tuple[Total, ...]
    baseline_position: tuple[Total, ...]  # weight 0 until the first update has been seen
    positional: PositionalMean


def start_positional_mean(tokens: int, feature_dim: int) -> PositionalMean:
    """State before the first update."""
    return PositionalMean(jnp.zeros((tokens, feature_dim)), jnp.zeros((), jnp.int32))


def update_positional_mean(
    state: PositionalMean, batch_mean_NxD: jax.Array, decay: float
) -> PositionalMean:
    """Plain average of the first updates, then exponential with `decay`."""
    seen = state.updates.astype(jnp.float32)
    # seen / (seen + 1) gives the plain average; it exceeds `decay` after 1 / (1 - decay) updates.
    keep = jnp.minimum(decay, seen / (seen + 1.0))
    mean = keep * state.mean_NxD + (1.0 - keep) * batch_mean_NxD
    return PositionalMean(mean, state.updates + 1)


def dense_weight(step: jax.Array, config: LossConfig) -> jax.Array:
    """Weight of the dense loss at an update: linear from 0 over `dense_warmup`, then constant."""
    first, last = config.dense_warmup
    progress = (jnp.asarray(step, jnp.float32) - first) / max(last - first, 1)
    ramp = jnp.clip(progress, 0.0, 1.0) if last > first else 1.0
    return jnp.asarray(config.dense_weight * ramp, jnp.float32)


def jepa_loss(
    prediction: Prediction,
    positional: PositionalMean,
    config: LossConfig,
    grid: tuple[int, int, int],
    sample_weights: jax.Array | None = None,
) -> JepaLoss:
    """Losses and baselines of a batch.

    Args:
        prediction: result of `predict`.
        positional: running positional mean before this batch.
        config: exponent, options of the dense loss (its weight is applied by the caller, see
            `dense_weight`), decay of the positional mean.
        grid: tokens along (depth, height, width).
        sample_weights: float [batch], 0 for padding; None for all ones.

    Returns:
        Sums over samples of the per-sample mean of |difference|^exponent / exponent, with weights.
    """
    target = prediction.target_BxNxD
    weights = jnp.ones(target.shape[0]) if sample_weights is None else sample_weights
    positions_NxD = _weighted_mean(target, weights)
    mean_D = positions_NxD.mean(axis=0)
    terms, dense, from_mean, from_position = [], [], [], []
    for one in prediction.sets:
        wanted = one.target_BxTxD
        terms.append(_measure(one.prediction_BxTxD - wanted, weights, config.exponent))
        dense.append(_dense_term(one, weights, config, grid))
        from_mean.append(_measure(wanted - mean_D[None, None], weights, config.exponent))
        average = gather_tokens(positional.mean_NxD[None], one.target_ids_BxT)
        measured = _measure(wanted - average, weights, config.exponent)
        # Before the first update the mean is all zeros, which is no baseline: weight 0 drops it.
        known = (positional.updates > 0).astype(jnp.float32)
        from_position.append(Total(measured.sum * known, measured.weight * known))
    updated = update_positional_mean(positional, positions_NxD, config.position_decay)
    return JepaLoss(tuple(terms), tuple(dense), tuple(from_mean), tuple(from_position), updated)


def skill(loss: Total, baseline: Total) -> jax.Array:
    """1 - loss / baseline of the means; 0 where a weight or the baseline is 0."""
    safe = (loss.weight > 0) & (baseline.weight > 0) & (baseline.sum > 0)
    mean = loss.sum / jnp.where(loss.weight > 0, loss.weight, 1.0)
    reference = baseline.sum / jnp.where(baseline.weight > 0, baseline.weight, 1.0)
    return jnp.where(safe, 1.0 - mean / jnp.where(safe, reference, 1.0), 0.0)


def _weighted_mean(target_BxNxD: jax.Array, weights_B: jax.Array) -> jax.Array:
    total = jnp.maximum(weights_B.sum(), jnp.finfo(jnp.float32).tiny)
    return jnp.einsum("BND,B->ND", target_BxNxD, weights_B) / total


def _distance(difference: jax.Array, exponent: float) -> jax.Array:
    if exponent == 1.0:
        return jnp.abs(difference)
    return jnp.abs(difference) ** exponent / exponent


def _measure(difference_BxTxD: jax.Array, weights_B: jax.Array, exponent: float) -> Total:
    per_sample = _distance(difference_BxTxD, exponent).mean(axis=(1, 2))
    return Total(jnp.sum(per_sample * weights_B), weights_B.sum())


def _dense_term(
    one: SetPrediction, weights_B: jax.Array, config: LossConfig, grid: tuple[int, int, int]
) -> Total | None:
    """Loss on visible tokens (V-JEPA 2.1), optionally weighted by 1 / sqrt(distance)."""
    if one.context_prediction_BxKxD is None or one.context_target_BxKxD is None:
        return None
    difference = one.context_prediction_BxKxD - one.context_target_BxKxD
    per_token = _distance(difference, config.exponent).mean(axis=-1)
    if config.dense_distance:
        nearest = jax.vmap(lambda c, t: nearest_distance(c, t, grid))
        # Context and targets share no token (`sample_masks`), so the distance is at least 1.
        per_token = per_token * nearest(one.context_ids_BxK, one.target_ids_BxT) ** -0.5
    return Total(jnp.sum(per_token.mean(axis=1) * weights_B), weights_B.sum())


def nearest_distance(
    context_ids: jax.Array, target_ids: jax.Array, grid: tuple[int, int, int]
) -> jax.Array:
    """Euclidean distance in tokens from each context token to the nearest target: float32 [K]."""
    here, there = (
        jnp.stack(jnp.unravel_index(ids, grid), axis=-1).astype(jnp.float32)
        for ids in (context_ids, target_ids)
    )
    # One axis at a time: an array [K, T, 3] of differences would take three times the memory.
    squared = sum((here[:, None, axis] - there[None, :, axis]) ** 2 for axis in range(3))
    return jnp.sqrt(jnp.min(squared, axis=1))
