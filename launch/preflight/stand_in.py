"""What a run knows of its data, for a preflight without them.

A system whose program needs facts of the data may have a module `preflight.py` with
`stand_in(config) -> (metadata, examples)`: what `Task.with_metadata` takes, and the length of the
training source. Sentences of the preflight say that such figures stood in for the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.config import TrainConfig
from training.registry import system_module, systems_with


@dataclass(frozen=True)
class StandIn:
    """Facts instead of data; None where they are not known or not needed."""

    metadata: Mapping[str, Any] | None = None
    train_examples: int | None = None

    @property
    def known(self) -> bool:
        return self.metadata is not None or self.train_examples is not None


def stand_in_for(config: TrainConfig) -> StandIn:
    """The system's own figures; nothing where it has none, as its program may need none."""
    if config.system not in systems_with("preflight"):
        return StandIn()
    metadata, examples = system_module(config.system, "preflight").stand_in(config)
    return StandIn(metadata, examples)
