"""The static sizes of a run, which grow on demand: slots, pairs of a view, rows of the exchange.

Each new size means a new compilation, so sizes are doubled. They are saved with a checkpoint, so
that a resumed run neither shrinks arrays nor has to find the sizes again. Room for pairs shrinks as
well: every slot is sorted, whether it holds a pair or not. It goes down to twice what is needed,
once four times that is there, and never again to a number that was too small once, so that the
number of compilations is bounded by the logarithm of the largest need.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax

from splats.config import Config, ModelConfig
from splats.losses.over_devices import gaussian_shards
from splats.losses.view_sums import ViewSums
from training.errors import ConfigError

OVERFLOW = "overflow"  # more (tile, Gaussian) pairs in a view than there is room for
EXCHANGE = "exchange"  # more visible Gaussians in a view than a shard could send
FULL = "full"  # more Gaussians wanted than there are slots
SENT_AT_FIRST = 4  # the exchange has room for a quarter of the slots,
ROOM_FOR_PAIRS = 2  # times what the fullest update of a window needed
LEAST_WINDOW = 100  # updates
LEAST_SENT = 4096  # but for so many at least: a small scene may be seen as a whole


@dataclass(frozen=True)
class Sizes:
    """Room for one run.

    Attributes:
      capacity: slots for Gaussians.
      pair_capacity: slots for the (tile, Gaussian) pairs of a view.
      exchange_capacity: visible Gaussians of a view that a device has room for where they lie
        sharded; 0 until it has grown beyond the configured number.
      too_few_pairs: the largest room for pairs that was too small once.
    """

    capacity: int
    pair_capacity: int
    exchange_capacity: int = 0
    too_few_pairs: int = 0

    def exchange_rows(self, config: Config) -> int | None:
        """Visible Gaussians of a view that a device has room for; None where each holds all."""
        if not config.shard_gaussians:
            return None
        default = max(self.capacity // SENT_AT_FIRST, LEAST_SENT)
        return max(self.exchange_capacity, config.render.exchange_capacity or default)

    def grown(self, reason: str, config: Config) -> Sizes:
        """Twice the room that was missing.

        Args:
          reason: one of the constants above, or several joined by ", ".
        """
        sizes, reasons = self, reason.split(", ")
        if OVERFLOW in reasons:
            now = self.pair_capacity
            too_few = max(now, self.too_few_pairs)
            sizes = replace(sizes, pair_capacity=2 * now, too_few_pairs=too_few)
        rows = self.exchange_rows(config)
        if EXCHANGE in reasons and rows is not None:
            sizes = replace(sizes, exchange_capacity=2 * rows)
        if FULL in reasons:
            sizes = replace(sizes, capacity=min(2 * self.capacity, config.model.cap_max))
        return sizes

    def spared(self, pairs: float) -> tuple[Sizes, str]:
        """With less room for pairs where there is too much, and what to say; else as it is.

        Args:
          pairs: of the fullest update of many.
        """
        wanted = 1 << max(0, math.ceil(math.log2(max(ROOM_FOR_PAIRS * pairs, 1))))
        while wanted <= self.too_few_pairs:
            wanted *= 2
        if 2 * wanted > self.pair_capacity:
            return self, ""
        sentence = (
            f"room for {wanted:,} pairs of tile and Gaussian instead of {self.pair_capacity:,}, "
            f"since at most {pairs:,.0f} were needed"
        )
        return replace(self, pair_capacity=wanted), sentence

    def to_metadata(self) -> dict[str, int]:
        """JSON saved with a checkpoint."""
        return asdict(self)


def window(views: int, config: Config) -> int:
    """Updates in which every training view comes up, and a hundred at least."""
    return max(-(-views // config.batch_size), LEAST_WINDOW)


def saved_sizes(metadata: Mapping[str, Any]) -> Sizes:
    """Of a checkpoint."""
    return Sizes(**metadata)


def starting_sizes(points: int, config: Config) -> Sizes:
    """Room for a run that starts from `points` Gaussians."""
    allocate_all = config.densify.strategy == "mcmc"  # it grows by 5 % at every refinement
    capacity = initial_capacity(points, config.model, allocate_all)
    return Sizes(capacity, config.render.pair_capacity)


def initial_capacity(points: int, config: ModelConfig, allocate_all: bool) -> int:
    """Slots at the start: all at once, or doubled from `initial_capacity` until the points fit.

    A third of the slots stays free, so that the first refinement has room.
    """
    if allocate_all:
        return config.cap_max
    # Doubled rather than fitted: scenes of similar size then share a compiled program.
    capacity = config.initial_capacity
    while capacity < 1.5 * points:
        capacity *= 2
    return min(capacity, config.cap_max)


def replay_reasons(config: Config) -> tuple[str, ...]:
    """What can be too small for an update, so that it is made again with more room."""
    return (OVERFLOW, EXCHANGE) if config.shard_gaussians else (OVERFLOW,)


def suppressions(config: Config, sums: ViewSums) -> dict[str, jax.Array]:
    """Reason -> bool scalar, whether the batch that gave `sums` has to be replayed for it."""
    flags = {OVERFLOW: sums.overflow, EXCHANGE: sums.incomplete}
    return {reason: flags[reason] for reason in replay_reasons(config)}


def check_shards(config: Config) -> None:
    """Before the first update, because slots are doubled up to the capacity much later.

    Raises:
      ConfigError: the shards would not be equal.
    """
    capacity, shards = config.model.cap_max, gaussian_shards()
    if config.shard_gaussians and capacity % shards:
        raise ConfigError(
            f"config.model.cap_max = {capacity} must be a multiple of {shards}, the devices that "
            "config.shard_gaussians spreads Gaussians over (config.mesh.fsdp)"
        )
