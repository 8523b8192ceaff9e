"""Losses, baselines and skill against numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa3d.config import LossConfig
from jepa3d.losses import dense_weight, jepa_loss, nearest_distance, skill
from jepa3d.model.jepa import Prediction, SetPrediction
from training.loss import Total

GRID = (2, 3, 4)
TOKENS, WIDTH, BATCH = 24, 6, 3


@pytest.fixture
def prediction(new_key):
    target = 1.0 + jax.random.normal(new_key(), (BATCH, TOKENS, WIDTH))
    order = jnp.argsort(jax.random.uniform(new_key(), (BATCH, TOKENS)), axis=1)
    context, wanted = order[:, :8], order[:, 10:]

    def take(ids):
        return jnp.take_along_axis(target, ids[:, :, None], axis=1)

    one = SetPrediction(
        prediction_BxTxD=jax.random.normal(new_key(), (BATCH, 14, WIDTH)),
        target_BxTxD=take(wanted),
        target_ids_BxT=wanted,
        context_ids_BxK=context,
        context_prediction_BxKxD=jax.random.normal(new_key(), (BATCH, 8, WIDTH)),
        context_target_BxKxD=take(context),
    )
    return Prediction((one,), target, target)


def mean(measured: Total) -> float:
    return float(measured.sum / measured.weight)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 1.5])
def test_loss_is_the_mean_power_of_the_difference_over_the_exponent(prediction, exponent):
    config = LossConfig(exponent=exponent)
    loss = jepa_loss(prediction, config, GRID)
    one = prediction.sets[0]
    difference = np.abs(np.array(one.prediction_BxTxD - one.target_BxTxD))
    assert mean(loss.prediction[0]) == pytest.approx(
        (difference**exponent).mean() / exponent, rel=1e-5
    )


def test_samples_of_weight_zero_do_not_count(prediction):
    weights = jnp.array([1.0, 0.0, 2.0])
    loss = jepa_loss(prediction, LossConfig(), GRID, sample_weights=weights)
    one = prediction.sets[0]
    per_sample = np.abs(np.array(one.prediction_BxTxD - one.target_BxTxD)).mean(axis=(1, 2))
    assert float(loss.prediction[0].weight) == 3.0
    assert mean(loss.prediction[0]) == pytest.approx(
        (per_sample[0] + 2 * per_sample[2]) / 3, rel=1e-5
    )


def test_the_baseline_is_the_mean_of_all_covered_tokens_of_the_batch(prediction, new_key):
    covered = np.array(jax.random.uniform(new_key(), (BATCH, TOKENS)) > 0.4)
    loss = jepa_loss(prediction, LossConfig(), GRID, jnp.asarray(covered))
    one, target = prediction.sets[0], np.array(prediction.target_BxNxD)
    mean_D = target[covered].mean(axis=0)
    counted = np.take_along_axis(covered, np.array(one.target_ids_BxT), axis=1)
    errors = np.abs(np.array(one.target_BxTxD) - mean_D[None, None]).mean(axis=2)
    expected = np.mean([row[use].mean() for row, use in zip(errors, counted)])
    assert mean(loss.baseline_mean[0]) == pytest.approx(expected, rel=1e-5)


def test_padding_counts_neither_as_target_nor_as_context(prediction):
    """Whatever is predicted there; a volume that is padding alone has no weight."""
    covered = jnp.ones((BATCH, TOKENS), bool).at[1].set(False).at[0, ::2].set(False)
    config = LossConfig(dense_weight=0.5)
    one = prediction.sets[0]
    at_padding = ~jnp.take_along_axis(covered, one.target_ids_BxT, axis=1)
    visible_padding = ~jnp.take_along_axis(covered, one.context_ids_BxK, axis=1)
    assert one.context_prediction_BxKxD is not None
    wild = one._replace(
        prediction_BxTxD=one.prediction_BxTxD + 1e3 * at_padding[..., None],
        context_prediction_BxKxD=one.context_prediction_BxKxD + 1e3 * visible_padding[..., None],
    )
    first, second = (
        jepa_loss(prediction._replace(sets=(s,)), config, GRID, covered) for s in (one, wild)
    )
    assert float(first.prediction[0].weight) == BATCH - 1
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert float(a) == pytest.approx(float(b), rel=1e-5)


def test_predicting_zero_of_normalized_gaussian_targets_costs_root_two_over_pi(new_key):
    target = jax.random.normal(new_key(), (2, 512, 64))
    ids = jnp.tile(jnp.arange(512), (2, 1))
    one = SetPrediction(jnp.zeros_like(target), target, ids, ids[:, :1], None, None)
    loss = jepa_loss(Prediction((one,), target, target), LossConfig(), (8, 8, 8))
    assert mean(loss.prediction[0]) == pytest.approx((2 / np.pi) ** 0.5, abs=5e-3)
    assert loss.dense == (None,)


def test_skill_is_one_when_perfect_zero_at_the_baseline_and_negative_below():
    one = jnp.float32(1.0)
    baseline = Total(jnp.float32(0.5), one)
    for sum_, expected in ((0.0, 1.0), (0.5, 0.0), (1.0, -1.0)):
        assert float(skill(Total(jnp.float32(sum_), one), baseline)) == pytest.approx(expected)


def test_dense_loss_divides_by_the_root_of_the_distance(prediction):
    config = LossConfig(dense_weight=0.5, dense_distance=True)
    (found,) = jepa_loss(prediction, config, GRID).dense
    one = prediction.sets[0]
    error = np.abs(np.array(one.context_prediction_BxKxD - one.context_target_BxKxD)).mean(axis=2)
    for sample in range(BATCH):
        here, there = (
            np.stack(np.unravel_index(np.array(ids[sample]), GRID), axis=-1)
            for ids in (one.context_ids_BxK, one.target_ids_BxT)
        )
        distance = np.linalg.norm(here[:, None] - there[None], axis=-1).min(axis=1)
        nearest = nearest_distance(one.context_ids_BxK[sample], one.target_ids_BxT[sample], GRID)
        np.testing.assert_allclose(nearest, distance, rtol=1e-5)
        error[sample] /= np.sqrt(distance)
    assert found is not None and mean(found) == pytest.approx(error.mean(), rel=1e-5)


def test_dense_weight_rises_linearly_over_its_warmup_and_stays():
    config = LossConfig(dense_weight=0.5, dense_warmup=(100, 200))
    found = [float(dense_weight(jnp.int32(step), config)) for step in (0, 100, 150, 200, 900)]
    np.testing.assert_allclose(found, [0.0, 0.0, 0.25, 0.5, 0.5])
    assert float(dense_weight(jnp.int32(0), LossConfig(dense_weight=0.5))) == 0.5
