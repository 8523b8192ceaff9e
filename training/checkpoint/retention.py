"""Which checkpoints are kept: the latest, the best by one metric, and a sparse history."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from training.config import CheckpointConfig


class Retention:
    """A preservation policy of orbax: keeps what any rule wants, and the newest always."""

    def __init__(self, config: CheckpointConfig):
        self.config = config

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """One answer for each checkpoint (`.step`, `.metrics`); they come in ascending order."""
        del context  # when and why the question is asked does not matter
        best = self.best({c.step: c.metrics or {} for c in checkpoints})
        first_latest = len(checkpoints) - max(1, self.config.keep_latest)
        sparse = self._first_after_each([checkpoint.step for checkpoint in checkpoints])
        return [
            index >= first_latest or checkpoint.step == best or checkpoint.step in sparse
            for index, checkpoint in enumerate(checkpoints)
        ]

    def best(self, metrics: Mapping[int, Mapping[str, float]]) -> int | None:
        """The step with the best value of `best_metric`, the later of equals; None without one."""
        name, sign = self.config.best_metric, 1.0 if self.config.best_mode == "max" else -1.0
        if name is None:
            return None
        scores = {step: sign * row[name] for step, row in metrics.items() if name in row}
        return max(scores, key=lambda step: (scores[step], step), default=None)

    def _first_after_each(self, steps: Sequence[int]) -> set[int]:
        """The first step at or after each multiple of `keep_every`, whatever the save cadence."""
        if self.config.keep_every is None:
            return set()
        pairs = itertools.pairwise([0, *steps])
        every = self.config.keep_every
        return {later for earlier, later in pairs if later // every > earlier // every}
