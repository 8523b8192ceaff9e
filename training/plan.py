"""When things happen: cadences of a run in updates, and how updates are cut into calls."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

from training.capabilities import Cadence, Refreshable, Varied
from training.config import Duration, TrainConfig
from training.task import Task


def _no_variant(step: int) -> Hashable:
    del step
    return None


@dataclass(frozen=True)
class Plan:
    """All cadences of a run, resolved to steps.

    Attributes:
      total: steps of the run.
      refresh: cadence of the task's own rewrite, or None.
      variant: step -> which static shapes the update after it has.
      logged_first: steps at the start that are all logged.
    """

    total: int
    evaluate_every: int
    save_every: int
    log_every: int
    updates_per_call: int
    refresh: Cadence | None = None
    variant: Callable[[int], Hashable] = _no_variant
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
        """(first step, updates) of each call.

        No call reaches over a cadence boundary, and all updates of a call have one variant.
        """
        # Not at log steps: the metrics of every update of a call come back.
        cuts = [self.evaluate_every, self.save_every]
        if self.refresh is not None:
            cuts.append(self.refresh.every)
        step = first
        while step < self.total:
            end = min(step + self.updates_per_call, self.total)
            end = min([end, *((step // cut + 1) * cut for cut in cuts)])
            shapes = self.variant(step)
            end = next((s for s in range(step + 1, end) if self.variant(s) != shapes), end)
            yield step, end - step
            step = end


def make_plan(task: Task, train_examples: int | None) -> Plan:
    """Resolves every duration of the task's config.

    Args:
      train_examples: length of the training source; None asks the task, and only where a duration
        is in epochs, because opening the data may be slow or impossible.

    Raises:
      ConfigError: a duration of less than one update or in no or several units.
    """
    config: TrainConfig = task.config
    durations: dict[str, Duration] = {
        "total": config.total,
        "evaluation.every": config.evaluation.every,
        "checkpoint.every": config.checkpoint.every,
    }
    if train_examples is None and any(d.epochs is not None for d in durations.values()):
        train_examples = len(task.sources().train)
    updates = {
        key: duration.resolve(key, config.batch_size, train_examples or 0)
        for key, duration in durations.items()
    }
    return Plan(
        total=updates["total"],
        evaluate_every=updates["evaluation.every"],
        save_every=updates["checkpoint.every"],
        log_every=config.log.every,
        updates_per_call=config.updates_per_call,
        refresh=task.refresh_cadence if isinstance(task, Refreshable) else None,
        variant=task.variant if isinstance(task, Varied) else _no_variant,
        logged_first=config.log.first,
    )
