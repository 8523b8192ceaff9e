"""The proof before the first update, and every fault that it is there to see."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jepa3d import task as jepa_task
from jepa3d.dependence import verdict
from jepa3d.model import jepa
from jepa3d.task import JepaTask
from tests.jepa3d.task_test import MASK, TASK, batch_of
from training.state import new_state

pytestmark = pytest.mark.usefixtures("quick_compilation")
BATCH = jax.tree.map(jnp.asarray, batch_of(3))


@pytest.fixture(scope="module")
def state():
    params, model_state = jax.jit(TASK.init)(jax.random.key(1))
    return new_state(params, model_state, {}, params["encoder"], jax.random.key(2))


def said(task, state):
    found = verdict(task, state, BATCH)
    assert found.name == "token-dependence"
    return "" if found.passed else found.sentence


def test_the_task_as_it_is_passes(state):
    assert said(TASK, state) == ""


class LeakingMasks(JepaTask):
    """The predicted tokens are among the visible ones."""

    def draw_masks(self, keys, seen):
        drawn = super().draw_masks(keys, seen)
        return [(target_ids[:, : MASK.context_tokens], target_ids) for _, target_ids in drawn]


class SeesEverything(JepaTask):
    """Each context feature has attended to the hidden tokens."""

    def predicted(self, params, target_encoder, seen, masks):
        model = self.config.model
        prediction = super().predicted(params, target_encoder, seen, masks)
        everything = jepa.encode(model, params["encoder"], seen.volumes)
        shift = everything[:, :, :1].mean(axis=1, keepdims=True)
        sets = [s._replace(prediction_BxTxD=s.prediction_BxTxD + shift) for s in prediction.sets]
        return prediction._replace(sets=tuple(sets))


class OnlineTarget(JepaTask):
    """The loss compares with the encoder that is being trained."""

    def loss(self, params, context, batch, key):
        return super().loss(params, dataclasses.replace(context, ema=params["encoder"]), batch, key)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (LeakingMasks, "the hidden tokens leak into the context"),
        (SeesEverything, "the hidden tokens leak into the context"),
        (OnlineTarget, "the targets are those of the online encoder"),
    ],
)
def test_leaks_and_targets_of_the_online_encoder_are_seen(state, fault, words):
    assert words in said(fault(TASK.config, TASK.masks), state)


def frozen(monkeypatch):
    """A target encoder that stands still beside an average that moves."""
    params, _ = jax.jit(TASK.init)(jax.random.key(1))
    predict = jepa_task.predict
    monkeypatch.setattr(jepa_task, "predict", lambda c, p, t, *rest: predict(c, p, params, *rest))


def not_normalized(monkeypatch):
    monkeypatch.setattr(jepa, "normalize_targets", lambda features, levels: features)


def blind(monkeypatch):
    """The predictor gets the mean over the batch in place of each context."""
    original = jepa.predict_targets

    def faulty(config, params, context, *rest):
        mean = jnp.broadcast_to(context.mean(axis=0, keepdims=True), context.shape)
        return original(config, params, mean, *rest)

    monkeypatch.setattr(jepa, "predict_targets", faulty)


def blindfolded(monkeypatch):
    """The predictor gets nothing at all."""
    original = jepa.predict_targets
    monkeypatch.setattr(
        jepa, "predict_targets", lambda c, p, context, *rest: original(c, p, 0 * context, *rest)
    )


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (frozen, "or of one that stands still"),
        (not_normalized, "they are not normalized"),
        (blind, "the examples mix"),
        (blindfolded, "the predictor is blind"),
    ],
)
def test_blind_predictors_and_wrong_targets_are_seen(state, monkeypatch, fault, words):
    fault(monkeypatch)
    # A class of its own, so that no program that was compiled without the fault is used.
    fresh = type(fault.__name__, (JepaTask,), {})
    assert words in said(fresh(TASK.config, TASK.masks), state)
