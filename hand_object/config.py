"""Typed settings: the fields of each node, how they are rendered, and how they are trained.

Widths that follow from others (the inputs of the color network, the layer before a skip) are
derived and are no keys. A *node* is what is rendered with a field of its own: `right`, `left`,
`object`. Lengths are in scene units, where the bounding sphere has the radius `sphere`, or in
canonical units, where the template of a node fills the unit ball.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hand_object.loss_config import BalanceConfig, LossConfig, PhasesConfig
from hand_object.phases import check_phases
from hand_object.prior.places import prior_path
from training.config import (
    Duration,
    EvaluationConfig,
    GroupConfig,
    LogConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from training.errors import ConfigError
from training.settings import setting

if TYPE_CHECKING:
    import jax


@dataclass(frozen=True)
class EncodingConfig:
    """What the SDF network is told about a point, besides its three coordinates."""

    kind: str = setting("frequencies", choices=("frequencies", "triplane"))
    frequencies: int = setting(6, least=0, most=16)  # octaves of sin and cos; 3 -> 39 numbers
    # Coarse to fine, of objects: no octave before `coarse_until`, all from `fine_from` on.
    coarse_until: int = setting(1000, least=0)  # updates
    fine_from: int = setting(10_000, least=1)  # updates
    resolution: int = setting(96, least=4, most=1024)  # triplane: cells along a side
    channels: int = setting(8, least=1, most=64)  # triplane: features of each plane

    def __post_init__(self):
        if self.coarse_until >= self.fine_from:
            raise ConfigError(
                f"encoding.coarse_until = {self.coarse_until} must be below encoding.fine_from = "
                f"{self.fine_from}; octaves are switched on between the two"
            )

    @property
    def width(self) -> int:
        """Numbers that the first layer of the SDF network is given."""
        if self.kind == "triplane":
            return 3 + 3 * self.channels
        return 3 + 6 * self.frequencies


@dataclass(frozen=True)
class SdfConfig:
    """Network of the signed distance and of the features that the color network sees."""

    layers: int = setting(4, least=1, most=16)  # hidden ones
    width: int = setting(256, least=8, most=4096)
    # The encoded point enters again before this hidden layer; None: nowhere.
    skip: int | None = setting(2, least=0, most=16)
    features: int = setting(256, least=1, most=4096)
    radius: float = setting(0.6, above=0, most=1)  # of the sphere at the start, canonical units
    sharpness: float = setting(100.0, above=0, most=1e4)  # of the softplus

    def __post_init__(self):
        # On the output layer (or later) a skip would undo the geometric initialization.
        if self.skip is not None and not 0 < self.skip < self.layers:
            raise ConfigError(
                f"sdf.skip = {self.skip} must lie strictly between 0 and sdf.layers = "
                f"{self.layers}; the usual place is {max(self.layers // 2, 1)}"
            )


@dataclass(frozen=True)
class ColorConfig:
    """Network of the color; its input width is derived."""

    layers: int = setting(8, least=1, most=16)  # hidden ones
    width: int = setting(256, least=8, most=4096)
    pose_code: int = setting(8, least=0, most=64)  # numbers made of the pose of the hand
    frame_code: int = setting(32, least=0, most=128)  # learned numbers per frame, objects only


@dataclass(frozen=True)
class DensityConfig:
    """How a signed distance becomes opacity; beta is the width of the surface."""

    kind: str = setting(
        "bounded_opacity", choices=("laplace", "laplace_clamped", "bounded_opacity", "neus")
    )
    beta: float = setting(0.1, above=0, most=10)  # at the start, scene units
    beta_least: float = setting(1e-4, least=1e-4, most=1)  # scene units
    most: float = setting(1.0, above=0, most=1e4)  # laplace_clamped: per scene unit
    depth_most: float = setting(20.0, above=0, most=80)  # bounded_opacity: optical depth of a step

    def __post_init__(self):
        if self.beta <= self.beta_least:
            raise ConfigError(
                f"density.beta = {self.beta:g} must be above density.beta_least = "
                f"{self.beta_least:g}; beta starts there and shrinks toward its least value"
            )


@dataclass(frozen=True)
class SamplerConfig:
    """Where the fields are asked along a ray."""

    kind: str = setting("error_bounded", choices=("error_bounded", "proposal"))
    samples: int = setting(64, least=2, most=1024)  # per node, of the final distribution
    probes: int = setting(128, least=4, most=1024)  # of one round, or of the cache
    extra: int = setting(32, least=0, most=512)  # error_bounded: probes that are kept
    rounds: int = setting(5, least=1, most=8)  # error_bounded
    bisections: int = setting(10, least=1, most=30)  # error_bounded: of beta
    error: float = setting(0.1, above=0, below=1)  # error_bounded: of the opacity
    cache: int = setting(64, least=8, most=256)  # proposal: cells along a side of the SDF cache
    cache_every: int = setting(50, least=1)  # proposal: updates between refreshes of the cache


@dataclass(frozen=True)
class BackgroundConfig:
    """What is behind the nodes."""

    kind: str = setting("inverted_sphere", choices=("inverted_sphere", "median_frame", "constant"))
    samples: int = setting(32, least=2, most=512)  # inverted_sphere, the rest too
    layers: int = setting(8, least=1, most=16)
    width: int = setting(256, least=8, most=4096)
    skip: int | None = setting(4, least=0, most=16)
    features: int = setting(256, least=1, most=4096)
    frequencies: int = setting(10, least=0, most=16)
    color_width: int = setting(128, least=8, most=4096)
    view_frequencies: int = setting(4, least=0, most=16)
    frame_code: int = setting(32, least=0, most=128)

    def __post_init__(self):
        if self.skip is not None and not 0 < self.skip < self.layers:
            raise ConfigError(
                f"background.skip = {self.skip} must lie strictly between 0 and "
                f"background.layers = {self.layers}"
            )
        if self.skip is not None and self.inputs >= self.width:
            raise ConfigError(
                f"background.width = {self.width} must be above the {self.inputs} numbers of an "
                "encoded point with its frame code, which join a layer at background.skip; widen "
                "it or set background.skip = None"
            )

    @property
    def inputs(self) -> int:
        """Numbers that the first layer is given."""
        return 4 + 8 * self.frequencies + self.frame_code


@dataclass(frozen=True)
class SkinningConfig:
    """How a point of the posed hand finds its place in the rest pose."""

    kind: str = setting("vertices", choices=("vertices", "capsules"))
    # Meters. Wider ones mix bones at joints: with 5 mm the skin of a bent hand is missed by
    # 1.6 mm on average.
    vertex_softness: float = setting(0.001, above=0, most=1)
    capsule_softness: float = setting(0.008, above=0, most=1)  # meters
    reach: float = setting(0.1, above=0, most=10)  # meters; beyond, the template's distance is used


@dataclass(frozen=True)
class FieldConfig:
    """The whole model; `preset` has the named ones."""

    encoding: EncodingConfig = setting(factory=EncodingConfig)
    sdf: SdfConfig = setting(factory=SdfConfig)
    color: ColorConfig = setting(factory=ColorConfig)
    density: DensityConfig = setting(factory=DensityConfig)
    sampler: SamplerConfig = setting(factory=SamplerConfig)
    background: BackgroundConfig = setting(factory=BackgroundConfig)
    skinning: SkinningConfig = setting(factory=SkinningConfig)
    compose: str = setting("additive", choices=("additive", "hold_sort"))
    sphere: float = setting(6.0, above=0, most=1e3)  # radius of the scene, scene units
    # Of matrix products inside of the wide networks; sums are always float32.
    compute: str = setting("float32", choices=("float32", "bfloat16"))

    def __post_init__(self):
        if self.sdf.skip is not None and self.encoding.width >= self.sdf.width:
            raise ConfigError(
                f"sdf.width = {self.sdf.width} must be above the {self.encoding.width} numbers of "
                "the encoded point, which join a layer at sdf.skip; widen it or set sdf.skip = None"
            )


def _seed() -> FieldConfig:
    return FieldConfig()


def _hold() -> FieldConfig:
    return FieldConfig(sdf=SdfConfig(layers=8, skip=4), color=ColorConfig(layers=4))


def _fast() -> FieldConfig:
    return FieldConfig(
        encoding=EncodingConfig(kind="triplane"),
        sdf=SdfConfig(layers=2, width=64, skip=None, features=16),
        color=ColorConfig(layers=2, width=64, frame_code=8),
        # A wider surface swallows fingers, and masks then bend the distances to make up for it.
        density=DensityConfig(beta=0.02),
        sampler=SamplerConfig(kind="proposal", samples=32, probes=64),
        background=BackgroundConfig(kind="median_frame"),
        skinning=SkinningConfig(kind="capsules"),
    )


def _smoke() -> FieldConfig:
    return FieldConfig(
        encoding=EncodingConfig(kind="triplane", resolution=16, channels=4),
        sdf=SdfConfig(layers=2, width=32, skip=None, features=8),
        color=ColorConfig(layers=1, width=32, pose_code=4, frame_code=4),
        sampler=SamplerConfig(kind="proposal", samples=8, probes=16, cache=16, cache_every=10),
        background=BackgroundConfig(kind="median_frame"),
        skinning=SkinningConfig(kind="capsules"),
    )


PRESETS: dict[str, Callable[[], FieldConfig]] = {
    "seed": _seed,
    "hold": _hold,
    "fast": _fast,
    "smoke": _smoke,
}


def preset(name: str) -> FieldConfig:
    """The model of a name.

    Raises:
      ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(
            f"there is no model preset {name!r}; choose one of {', '.join(sorted(PRESETS))}"
        )
    return PRESETS[name]()


SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class SequenceConfig:
    """Which video."""

    # HOLD build folder, absolute or under PODVISION_DATA; `synthetic` is made on the spot.
    path: str = setting(SYNTHETIC, resumable=True)
    longest: int | None = setting(None, least=16, most=4096)  # pixels of the longer side
    # Frames whose number is this many (less one) after a multiple of it are held out.
    hold_out: int = setting(8, least=2)
    # Hand model of the poses (name, MANO .pkl or .npz); `{side}` in it is the side. None: the one
    # that the data names.
    hand: str | None = None
    # Axes of the cameras; auto: those in which hands and object lie before them.
    camera: str = setting("auto", choices=("auto", "opencv", "opengl"))
    object: str | None = None  # name, where a recording has several; None: the nearest to a hand
    force: bool = setting(False, resumable=True)  # train in spite of red findings


@dataclass(frozen=True)
class RaysConfig:
    """Which pixels of a frame are looked at; those outside of both shares may lie anywhere."""

    per_frame: int = setting(128, least=1, most=65_536)
    on_object: float = setting(0.45, least=0, most=1)  # share in the box around the object's mask
    on_hands: float = setting(0.45, least=0, most=1)  # share in the boxes around the hands' masks

    def __post_init__(self):
        if self.on_object + self.on_hands > 1:
            raise ConfigError(
                f"rays.on_object = {self.on_object:g} and rays.on_hands = {self.on_hands:g} are "
                "more than 1 together; lower one of them"
            )


@dataclass(frozen=True)
class PosesConfig:
    """Which poses are refined with the fields."""

    refine_hands: bool = True
    refine_object: bool = True


@dataclass(frozen=True)
class PrefitConfig:
    """Stage 0: hands learn the distance to their template before any image is seen."""

    updates: int = setting(1500, least=0)  # 0: hands start as balls
    points: int = setting(16_384, least=64, most=2**22)  # around the template
    batch: int = setting(2048, least=1, most=2**20)


@dataclass(frozen=True)
class MetricsConfig:
    """What an evaluation measures besides pictures."""

    meshes: bool = True  # of hands and object, against ground truth where there is some
    resolution: int = setting(96, least=8, most=512)  # cells of the mesh along a side


_CONSTANT = ScheduleConfig("constant")


def reconstruction_optimizer(
    *,
    networks: float = 1e-4,
    planes: float = 1e-2,
    densities: float = 1e-4,
    poses: float = 1e-5,
    clip_norm: float | None = 0.5,
    schedule: ScheduleConfig = _CONSTANT,
) -> OptimizerConfig:
    """Adam with learning rates for networks, tri-planes, densities (beta) and pose tables.

    The defaults are HOLD's; eps and b2 are those of small networks on grids (instant-nsr-pl).
    """
    rates = {"networks": networks, "planes": planes, "densities": densities, "poses": poses}
    return OptimizerConfig(
        learning_rate=networks,
        b1=0.9,
        b2=0.99,
        # Gradients of coefficients that few points see are far below the usual 1e-8.
        eps=1e-15,
        weight_decay=0.0,
        clip_norm=clip_norm,
        schedule=schedule,
        groups=tuple(GroupConfig(name, rate) for name, rate in rates.items()),
        decay_rules=((r".*", False),),
    )


@dataclass(frozen=True)
class Config(TrainConfig):
    """A whole run. The batch size counts frames per update."""

    batch_size: int = setting(10, least=1, most=2**20)
    total: Duration = setting(factory=lambda: Duration(updates=40_000))
    optimizer: OptimizerConfig = setting(factory=reconstruction_optimizer)
    evaluation: EvaluationConfig = setting(
        factory=lambda: EvaluationConfig(every=Duration(updates=5000), batch_size=1),
        resumable=True,
    )
    log: LogConfig = setting(factory=lambda: LogConfig(first=20), resumable=True)
    sequence: SequenceConfig = setting(factory=SequenceConfig)
    model: FieldConfig = setting(factory=FieldConfig)
    rays: RaysConfig = setting(factory=RaysConfig)
    losses: LossConfig = setting(factory=LossConfig)
    phases: PhasesConfig = setting(factory=PhasesConfig)
    balance: BalanceConfig = setting(factory=BalanceConfig)
    poses: PosesConfig = setting(factory=PosesConfig)
    prefit: PrefitConfig = setting(factory=PrefitConfig)
    metrics: MetricsConfig = setting(factory=MetricsConfig, resumable=True)

    def __post_init__(self):
        wanted = {
            "planes": self.model.encoding.kind == "triplane",
            "poses": self.poses.refine_hands or self.poses.refine_object,
        }
        groups = tuple(g for g in self.optimizer.groups if wanted.get(g.name, True))
        # The class is frozen; what is set here is what everything else reads.
        object.__setattr__(self, "optimizer", replace(self.optimizer, groups=groups))
        # Of a duration in epochs, only the data tells how many updates it has.
        if self.total.epochs is None:
            total = self.total.resolve("total", self.batch_size, 0)
            check_phases(self.phases, self.balance, total)
        if self.phases.sds.on:
            _check_prior(self.phases.sds.prior)

    def coarse_step(self, applied: jax.Array) -> jax.Array | None:
        """Where coarse-to-fine encodings are; None: a later stage has all of their octaves."""
        return applied if self.checkpoint.init_from is None else None


def _check_prior(source: str) -> None:
    """Raises ConfigError where a prior is not there: a later stage would ask for it in hours."""
    try:
        prior_path(source)
    except ConfigError as error:
        raise ConfigError(f"config.phases.sds.prior = {source!r}: {error}") from None
