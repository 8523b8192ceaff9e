"""Which canvas each update trains on: one of a fixed set, so that each is compiled once.

The draw depends on the seed and the update only: all hosts, and all examples of a batch, agree.
"""

from __future__ import annotations

import numpy as np

from rtdetr.config import DataConfig, PhaseConfig
from rtdetr.data.geometry import Size

_DRAW = 1  # keeps the draws of sizes apart from those of examples; see rtdetr.data.source


def variants_of(config: DataConfig) -> tuple[Size, ...]:
    """Every canvas that training may use, each once; `config.size` comes first."""
    return tuple(dict.fromkeys((config.size, *config.scales)))


def canvas_at(config: DataConfig, seed: int, update: int, total_updates: int) -> Size:
    """The canvas of an update.

    `config.scales` are drawn from with equal chances; one that stands there three times is three
    times as frequent.
    """
    if not config.scales or not inside(config.scale_phase, update, total_updates):
        return config.size
    draw = np.random.default_rng([seed, _DRAW, update])
    return config.scales[int(draw.integers(len(config.scales)))]


def inside(phase: PhaseConfig, update: int, total_updates: int) -> bool:
    """Whether an update belongs to a phase."""
    # The same product at both ends: where one phase stops and another starts, no update is in both
    # or in none of them.
    return phase.start * total_updates <= update < phase.stop * total_updates
