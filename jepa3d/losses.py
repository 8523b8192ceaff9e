"""Losses and reference levels of joint-embedding prediction.

A JEPA loss alone says little: targets move, and collapse lowers it. So it is compared with the loss
of guessing the mean target of the batch, one vector for all tokens; *skill* is 1 - loss / loss of
the baseline. The baseline that counts, the best constant of each token position, needs other
volumes and is taken at evaluation (`jepa3d.skill`).

Tokens that the scan does not cover show nothing: they have weight 0.

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
from training.loss import Total


def added(parts: Sequence[Total]) -> Total:
    """Sum over mask sets, at least one: every set counts the same."""
    return Total(reduce(add, (m.sum for m in parts)), reduce(add, (m.weight for m in parts)))


class JepaLoss(NamedTuple):
    """Per mask set: the loss, the dense loss (or None) and the baseline."""

    prediction: tuple[Total, ...]
    dense: tuple[Total | None, ...]
    baseline_mean: tuple[Total, ...]


def dense_weight(step: jax.Array, config: LossConfig) -> jax.Array:
    """Weight of the dense loss at an update: linear from 0 over `dense_warmup`, then constant."""
    first, last = config.dense_warmup
    progress = (jnp.asarray(step, jnp.float32) - first) / max(last - first, 1)
    ramp = jnp.clip(progress, 0.0, 1.0) if last > first else 1.0
    return jnp.asarray(config.dense_weight * ramp, jnp.float32)


def jepa_loss(
    prediction: Prediction,
    config: LossConfig,
    grid: tuple[int, int, int],
    covered_BxN: jax.Array | None = None,
    sample_weights: jax.Array | None = None,
) -> JepaLoss:
    """Losses and baseline of a batch.

    Args:
        prediction: result of `predict`.
        config: exponent, options of the dense loss (its weight is applied by the caller, see
            `dense_weight`).
        grid: tokens along (depth, height, width).
        covered_BxN: bool [batch, tokens], False for padding; None where all is covered.
        sample_weights: float [batch], 0 for rows that fill up a batch; None for all ones.

    Returns:
        Sums over samples of the mean of |difference|^exponent / exponent over covered tokens, with
        weights. A sample without a covered target has weight 0.
    """
    target = prediction.target_BxNxD
    weights_B = jnp.ones(target.shape[0]) if sample_weights is None else sample_weights
    covered = jnp.ones(target.shape[:2]) if covered_BxN is None else covered_BxN.astype(jnp.float32)
    share_BxN = covered * weights_B[:, None]
    # float32 on every backend: a TPU multiplies in bfloat16 unless told otherwise.
    total_D = jnp.einsum("BND,BN->D", target, share_BxN, precision="highest")
    mean_D = total_D / jnp.maximum(share_BxN.sum(), jnp.finfo(jnp.float32).tiny)
    terms, dense, from_mean = [], [], []
    for one in prediction.sets:
        wanted, p = one.target_BxTxD, config.exponent
        counted_BxT = jnp.take_along_axis(covered, one.target_ids_BxT, axis=1)
        error_BxT = _distance(one.prediction_BxTxD - wanted, p)
        terms.append(_measure(error_BxT, counted_BxT, weights_B))
        dense.append(_dense_term(one, covered, weights_B, config, grid))
        from_mean.append(
            _measure(_distance(wanted - mean_D[None, None], p), counted_BxT, weights_B)
        )
    return JepaLoss(tuple(terms), tuple(dense), tuple(from_mean))


def skill(loss: Total, baseline: Total) -> jax.Array:
    """1 - loss / baseline of the means; 0 where a weight or the baseline is 0."""
    safe = (loss.weight > 0) & (baseline.weight > 0) & (baseline.sum > 0)
    mean = loss.sum / jnp.where(loss.weight > 0, loss.weight, 1.0)
    reference = baseline.sum / jnp.where(baseline.weight > 0, baseline.weight, 1.0)
    return jnp.where(safe, 1.0 - mean / jnp.where(safe, reference, 1.0), 0.0)


def _distance(difference_BxTxD: jax.Array, exponent: float) -> jax.Array:
    """[batch, T]: mean over the width of |difference|^exponent / exponent."""
    if exponent == 1.0:
        return jnp.abs(difference_BxTxD).mean(axis=-1)
    return (jnp.abs(difference_BxTxD) ** exponent / exponent).mean(axis=-1)


def _measure(error_BxT: jax.Array, counted_BxT: jax.Array, weights_B: jax.Array) -> Total:
    count_B = counted_BxT.sum(axis=1)
    weights_B = weights_B * (count_B > 0)
    per_sample = (error_BxT * counted_BxT).sum(axis=1) / jnp.maximum(count_B, 1.0)
    return Total(jnp.sum(per_sample * weights_B), weights_B.sum())


def _dense_term(
    one: SetPrediction,
    covered_BxN: jax.Array,
    weights_B: jax.Array,
    config: LossConfig,
    grid: tuple[int, int, int],
) -> Total | None:
    """Loss on visible tokens (V-JEPA 2.1), optionally weighted by 1 / sqrt(distance)."""
    if one.context_prediction_BxKxD is None or one.context_target_BxKxD is None:
        return None
    difference = one.context_prediction_BxKxD - one.context_target_BxKxD
    per_token = _distance(difference, config.exponent)
    if config.dense_distance:
        nearest = jax.vmap(lambda c, t: nearest_distance(c, t, grid))
        # Context and targets share no token (`sample_masks`), so the distance is at least 1.
        per_token = per_token * nearest(one.context_ids_BxK, one.target_ids_BxT) ** -0.5
    counted_BxK = jnp.take_along_axis(covered_BxN, one.context_ids_BxK, axis=1)
    return _measure(per_token, counted_BxK, weights_B)


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
