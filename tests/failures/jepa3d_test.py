"""Failure 8: a target that never moves, features that collapse, an evaluation loss of zero."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from jepa3d import dependence, evaluation
from jepa3d import task as jepa_task
from jepa3d.guards import best_verdict, collapse_verdict, loss_verdict
from jepa3d.model import jepa
from jepa3d.skill import ranked
from tests.failures.toy_run import ToyRun
from training import over_batches, step
from training.config import EmaConfig
from training.errors import EXIT_GUARD, GuardStop
from training.optimizer import global_norm
from training.record.metrics import read_metrics


@pytest.fixture
def train(podvision, tiny_recipe, oct_records, tmp_path):
    """Trains the tiny recipe for at most 12 updates; returns the command's outcome."""

    def run(*overrides):
        where = ("--config", tiny_recipe(oct_records), "--workdir", tmp_path / "run")
        return podvision("train", *where, *overrides)

    return run


def guard(tmp_path, name):
    rows = json.loads((tmp_path / "run" / "guards.json").read_text())
    (row,) = [row for row in rows if row["name"] == name]
    return row


def with_average(change):
    """The step, with another average; the size of its change is measured as in the original."""
    apply = step._apply

    def faulty(task, optimizer, settings, state, gradients):
        new, metrics = apply(task, optimizer, settings, state, gradients)
        target = step.averaged(task, new.params, new.model_state)
        ema = change(state.ema, target, metrics["ema_decay"])
        moved = global_norm(jax.tree.map(jnp.subtract, ema, state.ema))
        return dataclasses.replace(new, ema=ema), metrics | {"ema_update_norm": moved}

    return faulty


def never_called(average, params, decay):
    del params, decay
    return average


def in_bfloat16(average, params, decay):
    decay = decay.astype(jnp.bfloat16)  # 0.99925 rounds to 1

    def mix(a, p):
        mixed = decay * a.astype(jnp.bfloat16) + (1 - decay) * p.astype(jnp.bfloat16)
        return mixed.astype(jnp.float32)

    return jax.tree.map(mix, average, params)


@pytest.mark.slow
def test_8_a_target_encoder_whose_update_is_never_called_stops_the_run(
    train, tmp_path, monkeypatch
):
    monkeypatch.setattr(step, "_apply", with_average(never_called))
    result = train()
    assert result.code == EXIT_GUARD
    assert "did not move in 10 updates up to step 10" in result.err
    assert "the target encoder is frozen [guard ema-moved;" in result.err
    losses = [row["train/loss"] for row in read_metrics(tmp_path / "run") if "train/loss" in row]
    assert losses[-1] < losses[0], "as in the original, the loss had been falling"
    assert not guard(tmp_path, "ema-moved")["passed"]


def test_8_an_average_in_bfloat16_is_found_out_too(monkeypatch):
    monkeypatch.setattr(step, "_apply", with_average(in_bfloat16))
    run = ToyRun(ema=EmaConfig(kind="constant", start=0.99925))
    with pytest.raises(GuardStop, match="ema-moved"):
        run.train(20)


def collapsed_init(init):
    """All features are one constant vector plus noise of a thousandth of its size."""

    def start(self, key):
        params, state = init(self, key)
        norm = params["encoder"]["norm"]
        vector = jax.random.normal(jax.random.key(5), norm["bias"].shape)
        params["encoder"]["norm"] = {"scale": 1e-3 * norm["scale"], "bias": vector}
        return params, state

    return start


def test_8_collapsed_features_stop_the_run_at_the_evaluation(train, tmp_path, monkeypatch):
    monkeypatch.setattr(jepa_task.JepaTask, "init", collapsed_init(jepa_task.JepaTask.init))
    result = train()
    assert result.code == EXIT_GUARD
    assert "the features have collapsed: RankMe of the foreground features is 1.0" in result.err
    panel = json.loads((tmp_path / "run" / "eval" / "0.json").read_text())
    assert panel["rankme_centered"] > 4, "the centered rank alone would have called this healthy"


def panel(step, rank, spread=0.9, dead=0.0, between=0.5, volumes=4.0):
    return {
        "step": float(step),
        "rankme": rank,
        "rankme_relative": rank / 96,
        "feature_std_relative": spread,
        "feature_dead_fraction": dead,
        "cosine_between_volumes": between,
        "rankme_volumes": volumes,
    }


def test_8_collapse_after_good_evaluations_names_the_best_rank():
    rows = [panel(0, 19.2, 0.95), panel(6, 1.1, 0.001)]
    assert collapse_verdict(rows[:1]).passed
    verdict = collapse_verdict(rows)
    assert not verdict.passed and not verdict.warning and "best so far 19.2" in verdict.sentence


def test_8_a_rank_that_falls_on_a_real_run_is_warned_of_and_then_stops_it():
    """The measured fall: RankMe 9.58 to 2.30 of 96, spread 0.29 to 0.064, and no guard spoke."""
    rows = [
        panel(0, 9.58, 0.29),
        panel(50, 5.1, 0.15),
        panel(100, 3.2, 0.09),
        panel(150, 2.3, 0.064),
    ]
    found = [collapse_verdict(rows[: n + 1]) for n in range(len(rows))]
    assert [v.passed for v in found] == [False] * 4
    assert [v.warning for v in found] == [True, True, False, False]
    assert "only 2% of the possible directions" in found[3].sentence
    assert "halved within 1,000 updates, from 9.6" in found[3].sentence


def test_8_a_rank_that_is_low_at_first_and_rises_never_stops_a_run():
    rows = [panel(50 * n, 5.0 + 0.5 * n) for n in range(6)]
    for count in range(1, 7):
        verdict = collapse_verdict(rows[:count])
        assert verdict.warning and not verdict.passed


def test_8_a_rank_that_halves_but_is_not_low_is_only_warned_of():
    """Measured on synthetic retinas: the high rank of a random encoder is lost while it learns."""
    rows = [panel(60 * n, rank) for n, rank in enumerate((52.1, 38.2, 20.3, 15.0, 14.0, 13.0))]
    found = [collapse_verdict(rows[: n + 1]) for n in range(len(rows))]
    assert [v.passed for v in found] == [True, True, False, False, False, False]
    assert all(v.warning for v in found[2:])
    assert "halved within 1,000 updates, from 52.1" in found[-1].sentence


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (panel(0, 40.0, spread=0.04), "hardly differ from their mean"),
        (panel(0, 40.0, dead=0.6), "60% of the dimensions do not vary"),
        (panel(0, 40.0, between=0.9995, volumes=1.2), "all volumes look alike"),
        (panel(0, 9.0), "only 9% of the possible directions"),
    ],
)
def test_8_each_alarm_warns_once_and_stops_where_it_stands(row, words):
    assert words in collapse_verdict([row]).sentence and collapse_verdict([row]).warning
    standing = collapse_verdict([row] * 3)
    assert not standing.warning and "at 3 evaluations in a row" in standing.sentence


def test_8_the_most_collapsed_checkpoint_is_not_the_best_one():
    """By its skill alone it was: skill rose as the rank fell."""
    healthy, collapsed = ranked(0.05, 0.2), ranked(0.3, 2.3 / 96)
    assert healthy == 0.05 and collapsed < -0.4
    assert "no labels were given" in best_verdict("skill_ranked", {}).sentence
    verdict = best_verdict("skill_ranked", {"probe/drusen": 0.7})
    assert verdict.warning and "best_metric=probe/drusen" in verdict.sentence
    assert best_verdict("probe/drusen", {"probe/drusen": 0.7}).passed


def compared_with_itself(predict):
    def faulty(*arguments):
        result = predict(*arguments)
        sets = tuple(one._replace(prediction_BxTxD=one.target_BxTxD) for one in result.sets)
        return result._replace(sets=sets)

    return faulty


def over_no_token(predict):
    def faulty(*arguments):
        result = predict(*arguments)
        hidden = [jnp.zeros_like(one.target_BxTxD) for one in result.sets]
        sets = tuple(
            one._replace(prediction_BxTxD=one.prediction_BxTxD * zero, target_BxTxD=zero)
            for one, zero in zip(result.sets, hidden)
        )
        return result._replace(sets=sets)

    return faulty


@pytest.mark.parametrize("fault", [compared_with_itself, over_no_token])
def test_8_an_evaluation_loss_of_exactly_zero_stops_the_run(train, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(evaluation, "predict", fault(evaluation.predict))
    over_batches._compiled.cache_clear()
    result = train()
    over_batches._compiled.cache_clear()
    assert result.code == EXIT_GUARD
    assert "the evaluation loss at step 0 is exactly 0: no token is hidden" in result.err
    assert not (tmp_path / "run" / "checkpoints" / "4").exists()


def test_8_a_training_loss_of_exactly_zero_stops_the_run(train, tmp_path, monkeypatch):
    monkeypatch.setattr(jepa_task, "predict", compared_with_itself(jepa_task.predict))
    off = "--config.guards.off=token-dependence"  # it would have seen this before the first update
    result = train(
        "--config.guards.constant_term_updates=4", "--config.evaluation.at_start=False", off
    )
    assert result.code == EXIT_GUARD
    assert "term 'prediction' was exactly 0 for 4 updates up to step 4" in result.err


@pytest.mark.slow
def test_8_a_predictor_that_never_sees_its_volume_stops_before_the_first_update(
    train, tmp_path, monkeypatch
):
    original = jepa.predict_targets

    def faulty(config, params, context, *rest):
        mean = jnp.broadcast_to(context.mean(axis=0, keepdims=True), context.shape)
        return original(config, params, mean, *rest)

    monkeypatch.setattr(jepa, "predict_targets", faulty)
    dependence._programs.cache_clear()
    result = train()
    dependence._programs.cache_clear()
    assert result.code == EXIT_GUARD and "[guard token-dependence" in result.err
    assert "the examples mix" in result.err
    assert not (tmp_path / "run" / "checkpoints").exists() or not any(
        (tmp_path / "run" / "checkpoints").iterdir()
    )


def row(step, loss):
    return {"step": float(step), "loss": loss}


def test_8_the_evaluation_loss_must_be_positive_finite_and_change():
    assert loss_verdict([row(0, 0.8), row(6, 0.7), row(12, 0.8)]).passed
    assert loss_verdict([row(6, 0.8), row(6, 0.8)]).passed, "evaluated again after a resume"
    for history, said in (
        ([row(0, 0.8), row(6, 0.8)], "to the last bit that of step 0"),
        ([row(0, 0.0)], "exactly 0"),
        ([row(0, float("nan"))], "is nan"),
    ):
        verdict = loss_verdict(history)
        assert not verdict.passed and said in verdict.sentence
