"""Settings of the loss: its terms, the phases in which further terms act, and their balance.

A *phase* is a window of updates of a stage in which an auxiliary term acts: `sds` (what a prior
says), `contact` and `temporal`. The other terms, the *base*, act throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

from hand_object.prior.sds import SdsConfig
from training.errors import ConfigError
from training.settings import setting

UNENDING = 99_999  # a `last` of this or more stands for the end of the stage


@dataclass(frozen=True)
class LossConfig:
    """Coefficients of the base; see `hand_object.losses`."""

    rgb: float = setting(1.0, least=0, most=1e6)
    mask: float = setting(0.1, least=0, most=1e6)
    eikonal: float = setting(0.1, least=0, most=1e6)
    sparse: float = setting(0.0, least=0, most=1e6)  # opacity of a node where the mask has none
    template: float = setting(0.0, least=0, most=1e6)  # distance of a hand from its template
    poses: float = setting(0.0, least=0, most=1e6)  # corrections of poses


@dataclass(frozen=True)
class PhaseConfig:
    """A window [start, end) in updates of this stage, and how much its term may do."""

    # 0: the phase is off. With `balance.mode = gradient_share` any other number does the same.
    coefficient: float = setting(0.0, least=0, most=1e6)
    start: int = setting(0, least=0)  # first update of the window
    end: int | None = setting(None, least=1)  # first update after it; None: the end of the stage
    # In place of `end`, as older recipes count: the last update itself; 99999: the stage's end.
    last: int | None = setting(None, least=0)
    share: float = setting(0.08, above=0, most=0.5)  # gradient_share: of the gradient, all terms

    def __post_init__(self):
        if self.end is not None and self.last is not None:
            raise ConfigError(
                f"a phase has end = {self.end} and last = {self.last}; set one of them to None "
                "(end is the first update after the window, last the last one in it)"
            )
        if self.stop is not None and self.stop <= self.start:
            raise ConfigError(
                f"a phase starts at update {self.start} and stops before update {self.stop}, so "
                "that it is empty; set start < end"
            )

    @property
    def on(self) -> bool:
        return self.coefficient > 0

    @property
    def stop(self) -> int | None:
        """First update after the window; None: the end of the stage."""
        if self.last is not None:
            return None if self.last >= UNENDING else self.last + 1
        return self.end


@dataclass(frozen=True)
class SdsPhase(PhaseConfig):
    """What a diffusion prior says about the grasp; see `prior.sds`."""

    prior: str = "mini"  # the embedded one, or the file or work folder of another
    category: str | None = None  # what is held, in the words of the prior; None says nothing
    every: int = setting(1, least=1)  # updates of the window between two that ask
    asked: SdsConfig = setting(factory=SdsConfig)


@dataclass(frozen=True)
class ContactPhase(PhaseConfig):
    """Hands neither enter the object nor float before it; see `losses.contact`."""

    penetration: float = setting(5.0, least=0, most=1e3)
    attraction: float = setting(1.0, least=0, most=1e3)
    unit: float = setting(0.005, above=0, most=1)  # meters of violation that count 1
    reach: float = setting(0.02, above=0, most=1)  # meters; zones farther away are left alone
    # What it may change. A field that moves freely lets a hand carve the object.
    moves: str = setting("poses", choices=("poses", "poses+object_sdf", "object_sdf"))


@dataclass(frozen=True)
class TemporalPhase(PhaseConfig):
    """Smoothness of the pose tables; see `losses.temporal`."""

    velocity: float = setting(0.005, least=0, most=1e3)  # it shrinks real motion: keep it small
    acceleration: float = setting(0.001, least=0, most=1e3)
    window: int = setting(3, choices=(2, 3))  # frames compared at once; 2 has no acceleration

    def __post_init__(self):
        super().__post_init__()
        if self.on and not (self.velocity or (self.acceleration and self.window > 2)):
            raise ConfigError(
                "phases.temporal compares nothing: set velocity, or acceleration with window = 3, "
                "above 0, or coefficient = 0"
            )


@dataclass(frozen=True)
class PhasesConfig:
    """The phases of a stage."""

    # Mandatory where several are on. exclusive: one at a time; cumulative: later ones join in.
    overlap: str | None = setting(None, choices=(None, "exclusive", "cumulative"))
    gaps: bool = False  # exclusive: whether updates between two windows may have no phase
    least_updates: int = setting(200, least=1)  # that each phase must have in the stage
    sds: SdsPhase = setting(factory=SdsPhase)
    contact: ContactPhase = setting(factory=ContactPhase)
    temporal: TemporalPhase = setting(factory=TemporalPhase)

    def __post_init__(self):
        shares = sum(phase.share for phase in self.enabled().values())
        if shares >= 1:
            raise ConfigError(
                f"the shares of the phases add up to {shares:g}, which leaves nothing of the "
                "gradient for pictures and masks; lower phases.*.share"
            )

    def enabled(self) -> dict[str, PhaseConfig]:
        """The phases that are on, by name, in the order of their start."""
        every: dict[str, PhaseConfig] = {
            "sds": self.sds,
            "contact": self.contact,
            "temporal": self.temporal,
        }
        found = {name: phase for name, phase in every.items() if phase.on}
        return dict(sorted(found.items(), key=lambda item: item[1].start))


@dataclass(frozen=True)
class BalanceConfig:
    """How strong auxiliary terms are; see `losses.balance`."""

    # fixed: by their coefficients; gradient_share: so that each has its share of the gradient.
    mode: str = setting("gradient_share", choices=("fixed", "gradient_share"))
    every: int = setting(25, least=1)  # updates between measurements
    ramp: int = setting(500, least=1)  # updates until a term that begins has its full strength
    most: float = setting(0.25, above=0, below=1)  # share that no term may exceed
    memory: float = setting(0.9, least=0, below=1)  # share of the past in a moving average
    spike: float = setting(3.0, above=1, most=1e6)  # times the usual loss: terms are left out
    most_spikes: int = setting(20, least=1)  # in 500 updates
