"""The matching cost is its formula, and no broken number becomes a cheap match."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtdetr.boxes import cxcywh_norm
from rtdetr.config import LossConfig
from rtdetr.losses.matching_cost import WORST_COST, matching_cost
from rtdetr.losses.overlap import iou_and_giou
from rtdetr.targets import Predictions
from tests.rtdetr.losses.golden import random_output, random_targets

CONFIG = LossConfig()
compiled = jax.jit(matching_cost, static_argnums=2)


@pytest.fixture
def pairs():
    draw = np.random.default_rng(23)
    return random_output(draw, 2, 3, 6, 5).decoder, random_targets(draw, [4, 2, 0], 4, 5)


@pytest.mark.parametrize("config", [CONFIG, LossConfig(match_class=1, match_l1=3, match_giou=7)])
def test_cost_is_the_formula(pairs, config):
    predictions, targets = pairs
    cost, broken = compiled(predictions, targets, config)
    assert cost.shape == (2, 3, 4, 6) and int(broken) == 0
    for s, b, m, q in np.ndindex(*cost.shape):
        if m >= int(targets.count[b]):
            continue
        box = np.asarray(predictions.boxes.values[s, b, q], np.float64)
        wanted = np.asarray(targets.boxes.values[b, m], np.float64)
        z = float(predictions.logits[s, b, q, targets.labels[b, m]])
        p = 1 / (1 + np.exp(-z))
        focal = 0.25 * (1 - p) ** 2 * -np.log(p) - 0.75 * p**2 * -np.log(1 - p)
        giou = iou_and_giou(cxcywh_norm(jnp.asarray(box[None])), cxcywh_norm(wanted[None]))[1]
        expected = (
            config.match_l1 * np.abs(box - wanted).sum()
            + config.match_class * focal
            - config.match_giou * float(giou[0])
        )
        assert float(cost[s, b, m, q]) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["logits", "boxes"])
def test_broken_predictions_cost_most_and_are_counted(pairs, bad, where):
    predictions, targets = pairs
    logits, boxes = predictions.logits, predictions.boxes.values
    if where == "logits":
        # An infinite logit is a certain answer, of which the loss is told elsewhere.
        logits = logits.at[1, 0, 3].set(np.nan)
    else:
        boxes = boxes.at[1, 0, 3, 2].set(bad)
    cost, broken = compiled(Predictions(logits, cxcywh_norm(boxes)), targets, CONFIG)
    assert np.isfinite(cost).all() and int(broken) == 4
    assert (np.asarray(cost[1, 0, :, 3]) == WORST_COST).all()
    others = np.delete(np.asarray(cost[1, 0]), 3, axis=1)
    assert others.max() < 100


def test_a_huge_cost_is_not_above_that_of_no_number(pairs):
    predictions, targets = pairs
    boxes = predictions.boxes.values.at[0, 0, 0].set(1e30)
    cost, _ = compiled(Predictions(predictions.logits, cxcywh_norm(boxes)), targets, CONFIG)
    assert float(cost.max()) == WORST_COST


def test_extreme_logits_have_finite_costs(pairs):
    predictions, targets = pairs
    for logit in (-200.0, 200.0):
        logits = jnp.full_like(predictions.logits, logit)
        cost, broken = compiled(Predictions(logits, predictions.boxes), targets, CONFIG)
        assert int(broken) == 0 and float(cost.max()) < WORST_COST
