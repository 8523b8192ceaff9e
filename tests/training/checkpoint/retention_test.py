"""Which checkpoints survive, for any sequence of saves."""

from __future__ import annotations

import random
from types import SimpleNamespace

from training.checkpoint.retention import Retention
from training.config import CheckpointConfig


def survivors(config: CheckpointConfig, saves: list[tuple[int, float | None]]) -> list[int]:
    """Steps left after saving one after the other, asking the policy each time."""
    kept: list[SimpleNamespace] = []
    for step, value in saves:
        metrics = None if value is None else {config.best_metric: value}
        kept.append(SimpleNamespace(step=step, metrics=metrics))
        answers = Retention(config).should_preserve(kept, context=None)
        kept = [each for each, wanted in zip(kept, answers, strict=True) if wanted]
    return [each.step for each in kept]


def test_latest_best_and_every_n_are_kept_together():
    config = CheckpointConfig(keep_latest=2, keep_every=8, best_metric="score")
    saves = [(step, 0.9 if step == 4 else 0.1) for step in range(2, 15, 2)]
    assert survivors(config, saves) == [4, 8, 12, 14]


def test_a_bad_newest_checkpoint_is_kept_although_it_is_not_among_the_best():
    config = CheckpointConfig(keep_latest=1, keep_every=None, best_metric="score")
    assert survivors(config, [(1, 0.9), (2, 0.8), (3, 0.1), (4, 0.05)]) == [1, 4]
    assert survivors(CheckpointConfig(keep_latest=0, keep_every=None), [(1, None)]) == [1]


def test_min_keeps_the_smallest_and_later_wins_a_tie():
    config = CheckpointConfig(keep_latest=1, keep_every=None, best_metric="x", best_mode="min")
    assert survivors(config, [(1, 0.5), (2, 0.2), (3, 0.2), (4, 0.3), (5, None)]) == [3, 5]


def test_a_cadence_that_misses_the_multiples_still_leaves_a_sparse_history():
    config = CheckpointConfig(keep_latest=1, keep_every=100)
    saves = [(step, None) for step in range(37, 1000, 37)]
    expected = {
        next(step for step, _ in saves if step >= multiple)
        for multiple in range(100, saves[-1][0], 100)
    }
    assert survivors(config, saves) == sorted({*expected, saves[-1][0]})


def test_the_newest_and_the_best_survive_any_sequence():
    dice = random.Random(7)
    config = CheckpointConfig(keep_latest=2, keep_every=50, best_metric="score")
    for _ in range(50):
        steps = sorted(dice.sample(range(1, 400), 30))
        saves = [(step, dice.choice([None, dice.random()])) for step in steps]
        kept = survivors(config, saves)
        best = max((pair for pair in saves if pair[1] is not None), key=lambda pair: pair[1])
        assert {*steps[-2:], best[0]} <= set(kept)
