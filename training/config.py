"""Typed configuration of a run. Files give a ConfigDict; the program sees frozen dataclasses only.

`TrainConfig` holds what every system shares; a system's `config.py` derives its own `Config` from
it. Quantities that can be given in updates, epochs or examples are a `Duration`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from training.errors import ConfigError


@dataclass(frozen=True)
class Duration:
    """Exactly one of the three is set; `updates()` resolves it in the one place there is."""

    updates: int | None = None
    epochs: float | None = None
    examples: int | None = None

    def resolve(self, key: str, batch_size: int, train_examples: int) -> int:
        """The duration in optimizer updates (one update consumes one global batch).

        Raises:
          ConfigError: not exactly one unit is set, or the result is less than one update.
        """
        given = {
            name: value
            for name in ("updates", "epochs", "examples")
            if (value := getattr(self, name)) is not None
        }
        if len(given) != 1:
            raise ConfigError(
                f"config.{key} must set exactly one of updates, epochs and examples, "
                + (
                    f"but sets {sorted(given)}; set the others to None"
                    if given
                    else "but sets none"
                )
            )
        ((unit, value),) = given.items()
        per_update = {
            "updates": 1,
            "examples": batch_size,
            "epochs": batch_size / max(train_examples, 1),
        }[unit]
        updates = math.floor(value / per_update + 1e-9)
        if updates < 1:
            raise ConfigError(
                f"config.{key}.{unit} = {value} is less than one update "
                f"(batch {batch_size}, {train_examples} training examples); raise it"
            )
        return updates


@dataclass(frozen=True)
class ScheduleConfig:
    """A learning-rate schedule over applied updates; see `training.schedules`."""

    # warmup_cosine, constant, warmup_stable_decay, exponential or warmup_exponential
    kind: str = "warmup_cosine"
    warmup_fraction: float = 0.03  # of the total updates
    final_fraction: float = 0.1  # of the base learning rate, reached at the last update
    decay_fraction: float = 0.2  # of the total updates; warmup_stable_decay only
    warmup_updates: int | None = None  # instead of the fraction; at most half of the run counts
    warmup_start: float = 0.0  # of the base learning rate, at update 0


@dataclass(frozen=True)
class GroupConfig:
    """Overrides for one optimizer group; None takes the optimizer's own value."""

    name: str
    learning_rate: float | None = None
    weight_decay: float | None = None
    schedule: ScheduleConfig | None = None
    bias_correction: bool | None = None


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Adam where the weight decay is 0) with a schedule per group."""

    learning_rate: float = 1e-4  # base, reached after the warm-up
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.05  # decoupled, multiplied by the learning rate
    clip_norm: float | None = 1.0  # global norm; None does not clip
    bias_correction: bool = True  # of Adam's moments, which start at zero
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    groups: tuple[GroupConfig, ...] = ()
    # Ordered (regex on the leaf path, decayed?); the first match counts, every leaf must match.
    decay_rules: tuple[tuple[str, bool], ...] = ((r"(.*/)?kernel", True), (r".*", False))


@dataclass(frozen=True)
class EmaConfig:
    """Exponential moving average of parameters, updated once per applied update."""

    kind: str = "none"  # none, constant, linear, cosine or warmup (decay * (1 - exp(-t / tau)))
    start: float = 0.996  # decay at update 0
    end: float = 0.9995  # decay at the last update
    tau: float = 2000.0  # updates; warmup only


@dataclass(frozen=True)
class MeshConfig:
    """Device mesh; one axis may be -1 and takes the devices that are left."""

    data: int = -1
    fsdp: int = 1
    model: int = 1
    fsdp_min_bytes: int = 4 * 2**20  # smaller arrays stay replicated
    # Ordered (regex on the leaf path, axis name per dimension or None); before the fsdp rule.
    rules: tuple[tuple[str, tuple[str | None, ...]], ...] = ()


@dataclass(frozen=True)
class LoaderConfig:
    """Host side of the example stream."""

    workers: int = 4  # threads that read examples
    processes: int = 0  # reader processes instead of threads; 0: threads
    prefetch: int = 2  # batches kept ready on the device
    max_replaced_fraction: float = 0.01  # of the examples read, before the run stops (exit 4)


@dataclass(frozen=True)
class EvaluationConfig:
    """When and how much to evaluate."""

    every: Duration = field(default_factory=lambda: Duration(updates=1000))
    batch_size: int = 32  # global
    at_start: bool = True


@dataclass(frozen=True)
class CheckpointConfig:
    """Which checkpoints are written and kept: latest, best, and every N updates."""

    every: Duration = field(default_factory=lambda: Duration(updates=500))
    keep_latest: int = 3
    keep_every: int | None = 5000  # updates
    best_metric: str | None = None  # name in eval/<step>.json, or None
    best_mode: str = "max"  # max or min
    init_from: str | None = None  # work folder of an earlier stage
    init_include: tuple[str, ...] = ()  # regexes of leaves taken over; empty takes all
    init_exclude: tuple[str, ...] = ()  # regexes of leaves left at their initialization
    # Ordered (regex of a saved path, its path here); groups of the regex may be used (\\1).
    init_rename: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class LogConfig:
    """Where metrics go besides `metrics.jsonl`."""

    every: int = 10  # updates
    first: int = 1  # updates at the start of the run of which every one is logged
    tensorboard: bool = False
    wandb: bool = False  # offline unless WANDB_API_KEY is set
    wandb_project: str = "podvision"


@dataclass(frozen=True)
class GuardConfig:
    """Each guard has its own switch: name it in `off`."""

    off: tuple[str, ...] = ()
    max_consecutive_skips: int = 20
    constant_term_updates: int = 200  # a required term exactly constant or zero for so long
    zero_gradient_updates: int = 20  # a parameter group with exactly zero gradient for so long
    gradient_ratio: float = 1e6  # of the gradient norm to the parameter norm; above is absurd
    spike_factor: float = 10.0  # loss above median + factor * robust scale
    spike_patience: int = 5  # consecutive logged spikes
    hang_factor: float = 20.0  # times the median step time
    hang_seconds: float = 600.0  # and at least so long
    recorder_batches: int = 8  # ids of the last K batches that are kept


@dataclass(frozen=True)
class TrainConfig:
    """What every system's config has."""

    system: str
    name: str = ""
    seed: int = 0
    batch_size: int = 32  # global examples per update
    accumulation: int = 1  # micro-batches per update
    updates_per_call: int = 1  # updates in one dispatch
    total: Duration = field(default_factory=lambda: Duration(updates=1000))
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    guards: GuardConfig = field(default_factory=GuardConfig)


# Smallest and largest values of keys that would otherwise crash late or be ignored.
RANGES: dict[str, tuple[float, float]] = {
    "batch_size": (1, math.inf),
    "accumulation": (1, math.inf),
    "updates_per_call": (1, math.inf),
    "optimizer.learning_rate": (0, math.inf),
    "optimizer.b1": (0, 1),
    "optimizer.b2": (0, 1),
    "optimizer.eps": (0, math.inf),
    "optimizer.weight_decay": (0, math.inf),
    "optimizer.clip_norm": (0, math.inf),
    "ema.start": (0, 1),
    "ema.end": (0, 1),
    "loader.workers": (1, math.inf),
    "loader.processes": (0, math.inf),
    "loader.prefetch": (1, math.inf),
    "loader.max_replaced_fraction": (0, 1),
    "evaluation.batch_size": (1, math.inf),
    "checkpoint.keep_latest": (1, math.inf),
    "checkpoint.keep_every": (1, math.inf),
    "log.every": (1, math.inf),
}


def check_ranges(config: TrainConfig) -> None:
    """Raises ConfigError for a number outside `RANGES`; None stands for "not set"."""
    for path, (least, most) in RANGES.items():
        value: Any = attrgetter(path)(config)
        if value is not None and not least <= value <= most:
            wanted = f"{least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
            raise ConfigError(f"config.{path} = {value} must be {wanted}")
