"""Typed configuration of a run. Files give a ConfigDict; the program sees frozen dataclasses only.

`TrainConfig` holds what every system shares; a system's `config.py` derives its own `Config` from
it. Quantities that can be given in updates, epochs or examples are a `Duration`. A field says by
`setting` which values it takes and whether a resumed run may change it (`resumable`).
"""

from __future__ import annotations

from dataclasses import dataclass

from training.errors import ConfigError
from training.settings import readable, setting

# Three times as many, over which schedules are checked, still fit 32 bits.
MOST_UPDATES = 500_000_000
SMALLEST = 1e-30  # of a number that must not become zero in float32
SCHEDULE_KINDS = (
    "warmup_cosine",
    "constant",
    "warmup_stable_decay",
    "exponential",
    "warmup_exponential",
)
EMA_KINDS = ("none", "constant", "linear", "cosine", "warmup")


@dataclass(frozen=True)
class Duration:
    """A length of training, in one of three units; only `resolve` turns it into updates.

    In a recipe or an override, setting one of the keys takes the others back.
    """

    updates: int | None = setting(None, least=1, most=MOST_UPDATES)
    epochs: float | None = setting(None, above=0)
    examples: int | None = setting(None, least=1, most=2**62)

    # No field, since it has no annotation: `typed.lay_over` replaces such a group as a whole.
    ALTERNATIVE = True

    def resolve(self, key: str, batch_size: int, train_examples: int) -> int:
        """The duration in optimizer updates (one update consumes one global batch).

        Raises:
          ConfigError: not exactly one unit is set, or the result is less than one update or more
            than any run can count.
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
        # A product of decimal fractions may fall short of the whole number that was meant.
        # The bound keeps integers that no float can hold out of the division.
        exact = min(value, 2**62) / per_update + 1e-9
        context = f"(batch {batch_size}, {train_examples} training examples)"
        if not exact >= 1:
            raise ConfigError(
                f"config.{key}.{unit} = {value} is less than one update {context}; raise it"
            )
        if exact > MOST_UPDATES:
            raise ConfigError(
                f"config.{key}.{unit} = {readable(value)} is {exact:.3g} updates {context}, and a "
                f"run has {MOST_UPDATES:,} at most; lower it"
            )
        return int(exact)


@dataclass(frozen=True)
class ScheduleConfig:
    """A learning-rate schedule over applied updates; see `training.schedules`."""

    kind: str = setting("warmup_cosine", choices=SCHEDULE_KINDS)
    warmup_fraction: float = setting(0.03, least=0, most=1)  # of the total updates
    # Of the base learning rate, reached at the last update.
    final_fraction: float = setting(0.1, least=0, most=1)
    # Of the updates after the warm-up; warmup_stable_decay only. Not 0: it is a divisor.
    decay_fraction: float = setting(0.2, least=1e-6, most=1)
    # Its shape, and the part of the same updates at the very end that has the final rate already.
    decay_shape: str = setting("linear", choices=("linear", "cosine"))
    tail_fraction: float = setting(0.0, least=0, below=1)
    # Instead of the fraction; at most half of the run counts.
    warmup_updates: int | None = setting(None, least=1)
    warmup_start: float = setting(0.0, least=0, most=1)  # of the base learning rate, at update 0
    warmup_power: float = setting(1.0, least=0.5, most=4)  # 1: a line; 2: rises as the square

    def __post_init__(self):
        if self.tail_fraction and self.tail_fraction >= self.decay_fraction:
            raise ConfigError(
                f"schedule.tail_fraction = {self.tail_fraction} leaves nothing of decay_fraction = "
                f"{self.decay_fraction} to fall in; lower it"
            )
        if self.kind.endswith("exponential") and self.final_fraction == 0.0:
            raise ConfigError(
                "schedule.final_fraction = 0 cannot be reached by an exponential; "
                "set a small positive value"
            )


@dataclass(frozen=True)
class GroupConfig:
    """Settings of one optimizer group; None takes the optimizer's own value."""

    name: str
    learning_rate: float | None = setting(None, above=0, most=1e3)
    weight_decay: float | None = setting(None, least=0, most=1e3)
    schedule: ScheduleConfig | None = None
    bias_correction: bool | None = None


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Adam where the weight decay is 0) with a schedule per group."""

    learning_rate: float = setting(1e-4, above=0, most=1e3)  # base, reached after the warm-up
    b1: float = setting(0.9, least=0, below=1)
    b2: float = setting(0.999, least=0, below=1)
    eps: float = setting(1e-8, least=SMALLEST, most=1)
    # Decoupled, multiplied by the learning rate.
    weight_decay: float = setting(0.05, least=0, most=1e3)
    clip_norm: float | None = setting(1.0, least=SMALLEST)  # global norm; None does not clip
    bias_correction: bool = True  # of Adam's moments, which start at zero
    schedule: ScheduleConfig = setting(factory=ScheduleConfig)
    groups: tuple[GroupConfig, ...] = ()  # given and addressed by name
    # Ordered (regex on the leaf path, decayed?); the first match counts, every leaf must match.
    decay_rules: tuple[tuple[str, bool], ...] = ((r"(.*/)?kernel", True), (r".*", False))


@dataclass(frozen=True)
class EmaConfig:
    """Exponential moving average of parameters, updated once per applied update."""

    kind: str = setting("none", choices=EMA_KINDS)  # warmup: end * (1 - exp(-(t + 1) / tau))
    start: float = setting(0.996, least=0, most=1)  # decay at update 0
    end: float = setting(0.9995, least=0, most=1)  # decay at the last update
    tau: float = setting(2000.0, above=0)  # updates; warmup only


@dataclass(frozen=True)
class MeshConfig:
    """Device mesh; one axis may be -1 and takes the devices that are left."""

    data: int = setting(-1, least=-1, most=1_000_000)
    fsdp: int = setting(1, least=-1, most=1_000_000)
    model: int = setting(1, least=-1, most=1_000_000)
    fsdp_min_bytes: int = setting(4 * 2**20, least=0)  # smaller arrays stay replicated
    # Ordered (regex on the leaf path, axis name per dimension or None); before the fsdp rule.
    rules: tuple[tuple[str, tuple[str | None, ...]], ...] = ()


@dataclass(frozen=True)
class LoaderConfig:
    """Host side of the example stream."""

    workers: int = setting(4, least=1, most=1024)  # threads that read examples
    # Reader processes instead of threads; 0: threads.
    processes: int = setting(0, least=0, most=1024)
    prefetch: int = setting(2, least=1, most=64)  # batches kept ready on the device
    # Of the examples read, before the run stops (exit 4).
    max_replaced_fraction: float = setting(0.01, least=0, most=1)


@dataclass(frozen=True)
class EvaluationConfig:
    """When and how much to evaluate."""

    every: Duration = setting(factory=lambda: Duration(updates=1000))
    batch_size: int = setting(32, least=1, most=2**20)  # global
    at_start: bool = True


@dataclass(frozen=True)
class CheckpointConfig:
    """Which checkpoints are written and kept: latest, best, and every N updates."""

    every: Duration = setting(factory=lambda: Duration(updates=500), resumable=True)
    keep_latest: int = setting(3, least=1, resumable=True)
    keep_every: int | None = setting(5000, least=1, resumable=True)  # updates
    # Name in eval/<step>.json, or None.
    best_metric: str | None = setting(None, resumable=True)
    best_mode: str = setting("max", choices=("max", "min"), resumable=True)
    init_from: str | None = None  # work folder of an earlier stage
    init_include: tuple[str, ...] = ()  # regexes of leaves taken over; empty takes all
    init_exclude: tuple[str, ...] = ()  # regexes of leaves left at their initialization
    # Ordered (regex of a saved path, its path here); groups of the regex may be used (\\1).
    init_rename: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class LogConfig:
    """Where metrics go besides `metrics.jsonl`."""

    every: int = setting(10, least=1)  # updates
    # Updates at the start of the run of which every one is logged.
    first: int = setting(1, least=0)
    tensorboard: bool = False
    wandb: bool = False  # offline unless WANDB_API_KEY is set
    wandb_project: str = "podvision"


@dataclass(frozen=True)
class GuardConfig:
    """Each guard has its own switch: name it in `off`."""

    off: tuple[str, ...] = ()
    max_consecutive_skips: int = setting(20, least=1)  # suppressed updates in a row
    # A required term exactly constant or zero for so long.
    constant_term_updates: int = setting(200, least=1)
    # A parameter group with exactly zero gradient for so long.
    zero_gradient_updates: int = setting(20, least=1)
    # Of the gradient norm to the parameter norm; above is absurd.
    gradient_ratio: float = setting(1e6, above=0)
    spike_factor: float = 10.0  # loss above median + factor * robust scale
    spike_patience: int = setting(5, least=1)  # updates in a row; also of norms and shares
    hang_factor: float = setting(20.0, least=1)  # times the median step time
    hang_seconds: float = setting(600.0, above=0, most=1e7)  # and at least so long
    # So long after the stacks were written a hang ends the process; 0: never.
    hang_exit_seconds: float = setting(0.0, least=0, most=1e7)
    recorder_batches: int = setting(8, least=1, most=1000)  # ids of the last K batches


@dataclass(frozen=True)
class TrainConfig:
    """What every system's config has."""

    system: str
    name: str = setting("", resumable=True)
    seed: int = setting(0, least=0, most=2**63 - 1)
    batch_size: int = setting(32, least=1, most=2**20)  # global examples per update
    # Micro-batches per update.
    accumulation: int = setting(1, least=1, most=2**20, resumable=True)
    updates_per_call: int = setting(1, least=1, most=10_000, resumable=True)  # in one dispatch
    total: Duration = setting(factory=lambda: Duration(updates=1000))
    optimizer: OptimizerConfig = setting(factory=OptimizerConfig)
    ema: EmaConfig = setting(factory=EmaConfig)
    mesh: MeshConfig = setting(factory=MeshConfig, resumable=True)
    loader: LoaderConfig = setting(factory=LoaderConfig, resumable=True)
    evaluation: EvaluationConfig = setting(factory=EvaluationConfig, resumable=True)
    checkpoint: CheckpointConfig = setting(factory=CheckpointConfig)
    log: LogConfig = setting(factory=LogConfig, resumable=True)
    guards: GuardConfig = setting(factory=GuardConfig, resumable=True)
