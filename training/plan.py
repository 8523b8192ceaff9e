"""When things happen: cadences of a run in updates, and how updates are cut into calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from training.config import TrainConfig
from training.task import Cadence


@dataclass(frozen=True)
class Plan:
    """All cadences of a run, resolved to steps.

    Attributes:
      total: steps of the run.
      refresh: cadence of the task's own rewrite, or None.
      logged_first: steps at the start that are all logged.
    """

    total: int
    evaluate_every: int
    save_every: int
    log_every: int
    updates_per_call: int
    refresh: Cadence | None
    logged_first: int = 1

    def evaluates(self, step: int) -> bool:
        return step % self.evaluate_every == 0 or step == self.total

    def saves(self, step: int) -> bool:
        return step % self.save_every == 0 or step == self.total

    def logs(self, step: int) -> bool:
        return step % self.log_every == 0 or step <= self.logged_first or step == self.total

    def refreshes(self, step: int) -> bool:
        return self.refresh is not None and self.refresh.due(step)

    def calls(self, first: int) -> Iterator[tuple[int, int]]:
        """(first step, updates) of each call; no call reaches over a cadence boundary."""
        cuts = [self.evaluate_every, self.save_every]
        if self.refresh is not None:
            cuts.append(self.refresh.every)
        step = first
        while step < self.total:
            end = min(step + self.updates_per_call, self.total)
            end = min([end, *((step // cut + 1) * cut for cut in cuts)])
            yield step, end - step
            step = end


def make_plan(
    config: TrainConfig, train_examples: int, refresh: Cadence | None, logged_first: int = 1
) -> Plan:
    """Resolves every duration of a config; `refresh` and `logged_first` are the task's.

    Raises:
      ConfigError: a duration of less than one update or in no or several units.
    """
    size = config.batch_size
    return Plan(
        total=config.total.resolve("total", size, train_examples),
        evaluate_every=config.evaluation.every.resolve("evaluation.every", size, train_examples),
        save_every=config.checkpoint.every.resolve("checkpoint.every", size, train_examples),
        log_every=config.log.every,
        updates_per_call=config.updates_per_call,
        refresh=refresh,
        logged_first=logged_first,
    )
