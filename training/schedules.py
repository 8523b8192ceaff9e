"""Learning-rate and EMA-decay schedules: pure functions of the applied updates.

Contract (checked numerically before training by `check_schedule`): finite, positive at update 0,
non-increasing after the warm-up, constant after the horizon. The horizon is counted in updates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from training.config import EmaConfig, OptimizerConfig, ScheduleConfig
from training.errors import ConfigError

Schedule = Callable[[Any], Any]


def warmup_updates(config: ScheduleConfig, total_updates: int) -> int:
    """Updates of the linear warm-up; 0 for the kinds without one."""
    if not config.kind.startswith("warmup"):
        return 0
    if config.warmup_updates is not None:
        return max(1, min(config.warmup_updates, total_updates // 2))
    return max(1, math.ceil(config.warmup_fraction * total_updates))


def longest_warmup(config: OptimizerConfig, total_updates: int) -> int:
    """Updates until every group's learning rate may only fall."""
    shapes = [config.schedule, *(g.schedule for g in config.groups if g.schedule is not None)]
    return max(warmup_updates(shape, total_updates) for shape in shapes)


def make_schedule(config: ScheduleConfig, base: float, total_updates: int) -> Schedule:
    """Learning rate as a function of the number of applied updates, a host or a device array.

    With warm-up w and horizon T, update t has (t + 1) / w of the base while t < w, so that the
    first update already learns (or, from `warmup_start` s > 0, the line from s at update 0 to 1 at
    update w), raised to `warmup_power`; afterwards the kind's own decay, which is clamped at T.
    """
    warmup = warmup_updates(config, total_updates)
    first, final = config.warmup_start, config.final_fraction

    def factor(xp: Any, t: Any) -> Any:
        # The last of T updates is number T - 1, and has the final rate; so has every later one.
        t = xp.minimum(t, total_updates - 1)
        progress = xp.maximum((t - warmup) / max(total_updates - 1 - warmup, 1), 0.0)
        if config.kind == "constant":
            return xp.ones_like(progress)
        if config.kind in ("exponential", "warmup_exponential"):
            return xp.exp(math.log(final) * progress)
        if config.kind == "warmup_cosine":
            return final + (1 - final) * 0.5 * (1 + xp.cos(math.pi * progress))
        start, length = 1 - config.decay_fraction, config.decay_fraction - config.tail_fraction
        decay = xp.clip((progress - start) / length, 0.0, 1.0)
        if config.decay_shape == "cosine":
            decay = 0.5 * (1 - xp.cos(math.pi * decay))
        return 1 - (1 - final) * decay

    def schedule(applied: Any) -> Any:
        # Host numbers stay on the host: a schedule is checked where no device is attached, too.
        xp = jnp if isinstance(applied, jax.Array) else np
        t = xp.asarray(applied, xp.float32)
        risen = (t if first else t + 1) / max(warmup, 1)
        risen = xp.minimum(risen, 1.0) ** config.warmup_power
        warm = first + (1 - first) * risen if warmup else xp.ones_like(t)
        return xp.float32(base) * xp.where(t < warmup, warm, factor(xp, t))

    return schedule


def check_schedule(schedule: Schedule, warmup: int, total_updates: int, name: str) -> None:
    """Raises ConfigError where a learning-rate schedule breaks the contract over three horizons.

    Looks at every update of short runs and at 20,000 evenly spread ones of long runs.
    """
    # Beyond the end, too: a cosine that is not clamped there climbs again.
    points = np.unique(np.linspace(0, 3 * total_updates, 20_000).astype(np.int64))
    values = np.asarray(schedule(points), np.float64)
    if not np.all(np.isfinite(values)):
        raise ConfigError(
            f"{name}: the schedule is not finite at update {points[~np.isfinite(values)][0]}"
        )
    if values[0] <= 0:
        raise ConfigError(
            f"{name}: the learning rate is {values[0]:g} at update 0, so nothing would be learned; "
            "raise learning_rate or shorten the warm-up"
        )
    if np.any(values < 0):
        raise ConfigError(
            f"{name}: the learning rate is negative at update {points[values < 0][0]}; "
            "a schedule must stay at zero or above"
        )
    after = points >= warmup
    # Against the lowest rate so far: a slow climb hides between neighbors. 1e-6 is more than the
    # rounding of float32, in which the rates are computed.
    risen = values[after] - np.minimum.accumulate(values[after]) > 1e-6 * values.max()
    if risen.any():
        at = points[after][risen][0]
        raise ConfigError(
            f"{name}: the learning rate rises at update {at}, after the warm-up of {warmup} "
            "updates; use a schedule that never rises, with its horizon counted in updates"
        )
    beyond = values[points >= total_updates]
    if beyond.size and np.ptp(beyond) > 1e-6 * values.max():
        raise ConfigError(
            f"{name}: the learning rate still changes after the last update {total_updates}; "
            "end its decay within the run"
        )


def ema_decay(config: EmaConfig, total_updates: int) -> Schedule | None:
    """EMA decay d in `ema = d * ema + (1 - d) * params`, as a function of applied updates."""
    if config.kind == "none":
        return None

    def decay(applied: jax.Array | int) -> jax.Array:
        t = jnp.asarray(applied, jnp.float32)
        progress = jnp.clip(t / max(total_updates - 1, 1), 0.0, 1.0)
        if config.kind == "constant":
            return jnp.full_like(t, config.start)
        if config.kind == "linear":
            return config.start + (config.end - config.start) * progress
        if config.kind == "cosine":
            return config.end - (config.end - config.start) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        return config.end * (1 - jnp.exp(-(t + 1) / config.tau))

    return decay
