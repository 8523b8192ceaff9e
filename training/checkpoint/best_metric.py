"""Whether the metric that decides which checkpoint is best exists."""

from __future__ import annotations

from collections.abc import Mapping

from training.config import CheckpointConfig
from training.errors import ConfigError
from training.typed import suggestion


def check_best_metric(config: CheckpointConfig, metrics: Mapping[str, float]) -> None:
    """Refuses a name that the evaluation does not give; to be called at the first evaluation.

    Args:
      metrics: those of an evaluation; their names depend on the data, so none are known before.

    Raises:
      ConfigError: `checkpoint.best_metric` is none of them.
    """
    name = config.best_metric
    if name is not None and name not in metrics:
        raise ConfigError(
            f"config.checkpoint.best_metric = {name!r} is no metric of the evaluation"
            f"{suggestion(name, list(metrics))}"
        )
