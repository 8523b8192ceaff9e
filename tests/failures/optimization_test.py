"""Failures 1 to 4: cleared gradients, restarting cosine, rate of zero, swallowed NaN.

Each test puts the original fault back in and sees the run refused or stopped.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.failures.toy_run import CONFIG, ToyRun
from tests.training.toy import ToySource, ToyTask, task_with
from training import optimizer, step
from training.config import GuardConfig, OptimizerConfig, ScheduleConfig
from training.errors import EXIT_GUARD, ConfigError, GuardStop
from training.loss import Total
from training.optimizer import global_norm, group_norms
from training.source import Sources


def test_a_healthy_run_is_left_alone():
    run = ToyRun().train(120)
    assert run.findings == []
    assert run.column("loss")[-1] < 0.1 * run.column("loss")[0]
    assert min(run.column("grad_norm")) > 0


ZERO = (
    ((), "gradient norm before clipping was exactly zero at step 5, for 5 updates in a row", 5),
    (("grad-norm",), "'all' was exactly zero for 20 updates up to step 20: the loss does not", 20),
)


@pytest.mark.parametrize(("off", "said", "updates"), ZERO, ids=["grad-norm", "zero-gradient"])
def test_1_a_norm_measured_after_the_gradients_were_cleared_stops_the_run(
    monkeypatch, off, said, updates
):
    apply = step._apply

    def clear_then_measure(task, adam, settings, state, g):
        new, metrics = apply(task, adam, settings, state, g)
        cleared = jax.tree.map(jnp.zeros_like, g.gradients)
        metrics["grad_norm"] = global_norm(cleared)
        norms = group_norms(cleared, adam.labels)
        return new, metrics | {f"grad_norm/{name}": norm for name, norm in norms.items()}

    monkeypatch.setattr(step, "_apply", clear_then_measure)
    run = ToyRun(guards=GuardConfig(off=off))
    with pytest.raises(GuardStop, match=said) as caught:
        run.train(100)
    assert caught.value.exit_code == EXIT_GUARD and len(run.rows) == updates
    assert run.column("update_norm")[0] > 0, "as in the original, the parameters did move"


class DetachedTask(ToyTask):
    """The same loss curve, but no gradient reaches the parameters."""

    def loss(self, params, context, batch, key):
        return super().loss(jax.lax.stop_gradient(params), context, batch, key)


@pytest.mark.parametrize(("off", "said", "updates"), ZERO, ids=["grad-norm", "zero-gradient"])
def test_1_gradients_that_really_are_zero_stop_the_run(off, said, updates):
    run = ToyRun(DetachedTask(), guards=GuardConfig(off=off))
    with pytest.raises(GuardStop, match=said):
        run.train(100)
    assert len(run.rows) == updates


def test_1_the_norm_that_is_logged_is_that_of_the_gradients_at_the_parameters_before():
    run = ToyRun()
    start = jax.tree.map(np.asarray, run.state.params)
    run.train(1)
    source = ToySource(64)
    # The first batch, drawn anew and differentiated by hand: d/dW of a weighted mean of squares.
    order = np.argsort(np.random.Philox(key=[0, 0]).random_raw(64), kind="stable")[:16]
    x, y, w = (np.stack([source[int(i)][key] for i in order]) for key in ("x", "y", "w"))
    error = x @ start["dense"]["kernel"] + start["dense"]["bias"][None] - y
    slope = 2 * error * (w / w.sum())[:, None]
    by_hand = np.sqrt(np.sum((x.T @ slope) ** 2) + np.sum(slope.sum(0) ** 2))
    assert run.column("grad_norm")[0] == pytest.approx(by_hand, rel=1e-5)


def epoch_cosine(warmup, total):
    """Made to be stepped once per epoch: beyond its last epoch the cosine climbs again."""

    def schedule(t):
        t = jnp.asarray(t, jnp.float32)
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * (t - warmup) / (total - warmup)))
        return 1e-2 * jnp.where(t < warmup, (t + 1) / warmup, 0.01 + 0.99 * cosine)

    return schedule


def test_2_a_cosine_in_epochs_is_refused_before_the_first_update(monkeypatch):
    monkeypatch.setattr(optimizer, "make_schedule", lambda *_: epoch_cosine(10, 150))
    with pytest.raises(ConfigError, match=r"rises at update 15.*horizon counted in updates"):
        ToyRun(total=1400)


def test_2_and_where_nobody_checked_it_the_climb_stops_the_run(monkeypatch):
    monkeypatch.setattr(optimizer, "make_schedule", lambda *_: epoch_cosine(2, 12))
    monkeypatch.setattr(optimizer, "check_schedule", lambda *_: None)
    run = ToyRun(total=200)
    with pytest.raises(GuardStop, match=r"learning_rate rose from 0\.0001 to .* at step 14, after"):
        run.train(100)
    rates = run.column("learning_rate")
    assert len(rates) == 14 and rates[-1] > rates[-2]


@pytest.mark.parametrize(
    "schedule",
    [
        optax.warmup_cosine_decay_schedule(0.0, 1e-2, 10, 200),
        lambda t: 1e-2 * (jnp.asarray(t, jnp.float32) * 0),
    ],
    ids=["warm-up from zero", "multiplied by zero"],
)
def test_3_a_rate_of_zero_at_the_first_update_is_refused(monkeypatch, schedule):
    monkeypatch.setattr(optimizer, "make_schedule", lambda *_: schedule)
    with pytest.raises(ConfigError, match="0 at update 0, so nothing would be learned"):
        ToyRun()


def test_3_a_configured_rate_of_zero_is_refused():
    with pytest.raises(ConfigError, match="raise learning_rate"):
        ToyRun(optimizer=OptimizerConfig(learning_rate=0.0))


def rates_with(parts):
    cosine = OptimizerConfig(learning_rate=1e-2, schedule=ScheduleConfig("warmup_cosine", 0.2))
    run = ToyRun(total=12, accumulation=parts, optimizer=cosine).train(12)
    assert int(run.state.opt_state.count) == int(run.state.applied) == 12
    return run.column("learning_rate")


def test_3_accumulation_does_not_advance_the_schedule():
    whole = rates_with(1)
    assert rates_with(4) == whole
    assert whole[-1] == pytest.approx(1e-3) and whole[0] > 0


def test_3_a_schedule_advanced_on_micro_steps_would_be_seen(monkeypatch):
    rates = optimizer.Optimizer.learning_rates
    whole = rates_with(1)
    monkeypatch.setattr(
        optimizer.Optimizer, "learning_rates", lambda self, applied: rates(self, 4 * applied)
    )
    assert rates_with(4) != whole


@dataclasses.dataclass(frozen=True)
class PoisonedSource(ToySource):
    """From some example on, one value is not a number."""

    bad: frozenset[int] = frozenset()

    def __getitem__(self, index):
        example = super().__getitem__(index)
        if index in self.bad:
            example["x"] = np.full(8, np.nan, np.float32)
        return example


def poisoned(bad):
    sources = Sources(PoisonedSource(64, 0, frozenset(bad)), {})
    return task_with(sources=lambda: sources)


def test_4_one_batch_with_nan_is_suppressed_counted_and_reported():
    run = ToyRun(poisoned({13})).train(8)  # two epochs of four updates: it is met twice
    skipped = [step for step, finding in run.findings if finding.name == "nonfinite"]
    assert len(skipped) == 2 and int(run.state.skipped) == 2 and int(run.state.applied) == 6
    assert run.column("suppressed/nonfinite").count(1.0) == 2
    assert (
        f"the update of step {skipped[0]} was suppressed (nonfinite)"
        in (run.book.rows["nonfinite"]["sentence"])
    )
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(run.state.params))


def test_4_nan_in_every_batch_stops_the_run_with_the_parameters_of_before():
    run = ToyRun(poisoned(range(64)))
    before = jax.tree.map(np.asarray, run.state.params)
    with pytest.raises(
        GuardStop, match=r"5 updates in a row were suppressed \(nonfinite\)"
    ) as stop:
        run.train(100)
    assert stop.value.exit_code == EXIT_GUARD and len(run.rows) == 5
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(run.state.params)):
        np.testing.assert_array_equal(a, b)


class ExplodingTask(ToyTask):
    """Finite loss, infinite gradient: the square root at zero."""

    def loss(self, params, context, batch, key):
        output = super().loss(params, context, batch, key)
        total = output.terms["error"]
        kernel = params["dense"]["kernel"]
        root = jnp.sum(jnp.sqrt(jnp.abs(kernel - jax.lax.stop_gradient(kernel))))
        return dataclasses.replace(output, terms={"error": Total(total.sum + root, total.weight)})


def test_4_a_gradient_that_is_not_finite_under_a_finite_loss_is_suppressed_too():
    run = ToyRun(ExplodingTask())
    with pytest.raises(GuardStop, match="consecutive-skips"):
        run.train(100)
    assert np.isfinite(run.column("loss")).all() and not np.isfinite(run.column("grad_norm")).any()


def test_4_switching_the_guard_off_still_keeps_the_parameters_finite():
    off = GuardConfig(off=("consecutive-skips", "nonfinite"))
    run = ToyRun(poisoned(range(64)), guards=off).train(30)
    assert int(run.state.skipped) == 30 and run.findings == []
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(run.state.params))
    assert CONFIG.guards.off == ()
