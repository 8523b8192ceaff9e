"""The static sizes of a run, which grow on demand: slots, pairs of a view, rows of the exchange.

Each new size means a new compilation, so sizes are doubled. They are saved with a checkpoint, so
that a resumed run neither shrinks arrays nor has to find the sizes again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax

from splats.gaussians import refinement
from splats.losses.over_devices import gaussian_shards
from splats.losses.view_sums import ViewSums
from training.errors import ConfigError
from training.state import TrainState

if TYPE_CHECKING:
    from splats.task import SplatTask

OVERFLOW = "overflow"  # more (tile, Gaussian) pairs in a view than there is room for
EXCHANGE = "exchange"  # more visible Gaussians in a view than a shard could send
FULL = "full"  # more Gaussians wanted than there are slots
SENT_AT_FIRST = 4  # the exchange has room for a quarter of the slots,
LEAST_SENT = 4096  # but for so many at least: a small scene may be seen as a whole


def replay_reasons(task: SplatTask) -> tuple[str, ...]:
    """What was too small for an update, so that it is made again with more room."""
    return (OVERFLOW, EXCHANGE) if task.config.shard_gaussians else (OVERFLOW,)


def suppressions(task: SplatTask, sums: ViewSums) -> dict[str, jax.Array]:
    """Reason -> bool scalar, whether the batch that gave `sums` has to be replayed for it."""
    flags = {OVERFLOW: sums.overflow, EXCHANGE: sums.incomplete}
    return {reason: flags[reason] for reason in replay_reasons(task)}


def exchange_rows(task: SplatTask) -> int | None:
    """Visible Gaussians of a view that a device has room for; None where each holds all."""
    if not task.config.shard_gaussians:
        return None
    default = max(task.capacity // SENT_AT_FIRST, LEAST_SENT)
    return max(task.exchange_capacity, task.config.render.exchange_capacity or default)


def check_shards(task: SplatTask) -> None:
    """Before the first update, because slots are doubled up to the capacity much later.

    Raises:
      ConfigError: the shards would not be equal.
    """
    capacity, shards = task.config.model.cap_max, gaussian_shards()
    if task.config.shard_gaussians and capacity % shards:
        raise ConfigError(
            f"config.model.cap_max = {capacity} must be a multiple of {shards}, the devices that "
            "config.shard_gaussians spreads Gaussians over (config.mesh.fsdp)"
        )


def grown(task: SplatTask, state: TrainState, reason: str) -> tuple[SplatTask, TrainState]:
    """The task and the state with twice the room that was missing.

    Args:
      reason: one of the constants above, or several joined by ", ".
    """
    reasons = reason.split(", ")
    if OVERFLOW in reasons:
        task = replace(task, pair_capacity=2 * task.pair_capacity)
    rows = exchange_rows(task)
    if EXCHANGE in reasons and rows is not None:
        task = replace(task, exchange_capacity=2 * rows)
    if FULL in reasons:
        return resized(task, state, min(2 * task.capacity, task.config.model.cap_max))
    return task, state


def resized(task: SplatTask, state: TrainState, capacity: int) -> tuple[SplatTask, TrainState]:
    """The task and the state with `capacity` slots, at least as many as now."""
    resize = jax.jit(refinement.resized, static_argnums=(1, 2))
    return replace(task, capacity=capacity), resize(state, capacity, task.config.shard_gaussians)


def to_metadata(task: SplatTask) -> dict[str, Any]:
    """JSON saved with a checkpoint."""
    return {
        "capacity": task.capacity,
        "pair_capacity": task.pair_capacity,
        "exchange_capacity": task.exchange_capacity,
        "first_degree": task.first_degree,
    }


def from_metadata(task: SplatTask, metadata: Mapping[str, Any]) -> SplatTask:
    """The task with the slots of a checkpoint, at least its room for the rest, and its degree."""
    saved = int(metadata.get("exchange_capacity", 0))  # checkpoints of earlier versions lack it
    return replace(
        task,
        capacity=int(metadata["capacity"]),
        pair_capacity=max(task.pair_capacity, int(metadata["pair_capacity"])),
        exchange_capacity=max(task.exchange_capacity, saved),
        first_degree=int(metadata.get("first_degree", 0)),
    )
