"""Typed configuration of a splat training run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from splats.data.background import AUTO, background_color
from splats.data.splits import SplitConfig
from training.config import (
    CheckpointConfig,
    Duration,
    EvaluationConfig,
    GroupConfig,
    LogConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from training.data_folder import data_folder
from training.errors import ConfigError
from training.settings import setting

SYNTHETIC = "synthetic"
RESET_CEILING = 2.0  # times densify.prune_opa: what an opacity reset leaves at most
FAINTEST = 1.0 / 255.0  # opacity below which nothing is drawn
LPIPS_VARIANTS = ("alex", "vgg", "vgg_unnormalized")
MOST_GAUSSIANS = 1 << 28  # 63 GB of parameters


@dataclass(frozen=True)
class SceneConfig:
    """Which photographs."""

    # Folder of the scene, absolute or under PODVISION_DATA; its content is compared at a resume.
    path: str = setting(SYNTHETIC, resumable=True)
    images: str = "images"  # image folder inside a COLMAP scene
    factor: int | None = setting(None, least=1, most=64)  # shrink the images by this integer
    split: SplitConfig = setting(factory=SplitConfig)  # held-out views are mandatory
    normalize: bool = True  # center, rotate and scale the world
    # Multiplies the scene scale, and with it rates and thresholds.
    scale_factor: float = setting(1.0, above=0, most=1e6)
    # Writable folder for undistorted and shrunk images.
    cache: str | None = setting(None, resumable=True)
    # Which reconstruction, where a folder holds several.
    kind: str | None = setting(None, choices=(None, "colmap", "nerfstudio", "blender"))
    # Folder of the COLMAP model in the scene, such as sparse/1 (None: the one with most images).
    sparse: str | None = None
    masks: str = "masks"  # folder of NAME.png masks in the scene; black pixels are ignored
    # What a transparent pixel is: ignored, or the background (None: the latter for blender only).
    alpha: str | None = setting(None, choices=(None, "mask", "background"))
    # Behind renderings and transparent photographs: auto (white for blender, black otherwise),
    # black, white or #rrggbb.
    background: str = AUTO

    def __post_init__(self):
        background_color(self.background, "")


@dataclass(frozen=True)
class ModelConfig:
    """The Gaussians at the start, and how many there may be."""

    # Points of the reconstruction or random ones.
    initialization: str = setting("points", choices=("points", "random"))
    random_points: int = setting(100_000, least=4, most=MOST_GAUSSIANS)  # random only
    init_opacity: float = setting(0.1, above=0, below=1)
    # Times the distance to the three nearest points.
    init_scale: float = setting(1.0, above=0, most=1e6)
    sh_degree: int = setting(3, choices=(0, 1, 2, 3))  # of the spherical harmonics
    sh_every: int = setting(1000, least=1)  # updates between degrees
    # Slots at the start; doubled when they fill up.
    initial_capacity: int = setting(65_536, least=1, most=MOST_GAUSSIANS)
    cap_max: int = setting(1_000_000, least=1, most=MOST_GAUSSIANS)  # Gaussians (slots) at most
    bilateral_grid: bool = False  # a color correction per training view
    pose_correction: bool = False  # a pose correction per training view


@dataclass(frozen=True)
class LossConfig:
    """Coefficients; l1 has 1 - ssim."""

    ssim: float = setting(0.2, least=0, most=1)
    opacity: float = setting(0.0, least=0, most=1e6)  # mean opacity of the visible Gaussians
    scale: float = setting(0.0, least=0, most=1e6)  # mean linear scale of the visible Gaussians
    # L1 of disparity times scene scale at reconstructed points (COLMAP scenes).
    depth: float = setting(0.0, least=0, most=1e6)
    total_variation: float = setting(10.0, least=0, most=1e6)  # of bilateral grids
    random_background: bool = False  # a new color behind each view, in training only
    # Absolute error of the accumulated opacity, where photographs are partly transparent.
    alpha: float = setting(0.1, least=0, most=1e6)


@dataclass(frozen=True)
class DensifyConfig:
    """When and how Gaussians are added and removed; names as in gsplat's strategies.

    Lengths are fractions of the scene scale; `iter` counts updates.
    """

    # `default` is adaptive density control.
    strategy: str = setting("mcmc", choices=("mcmc", "default", "none"))
    refine_start_iter: int = setting(500, least=0)  # first refinement after this update
    refine_stop_iter: int = setting(25_000, least=0)  # no refinement from this update on
    refine_every: int = setting(100, least=1)  # updates
    min_opacity: float = setting(0.005, above=0, below=1)  # mcmc: dead at or below
    growth: float = setting(1.05, least=1, most=2)  # mcmc: factor per refinement
    noise_lr: float = setting(5e5, least=0, most=1e9)  # mcmc: times the learning rate of the means
    noise_on_visible: bool = False  # mcmc: only Gaussians that the update has seen
    # default: threshold of the screen gradient, in normalized device units.
    grow_grad2d: float = setting(2e-4, above=0)
    absgrad: bool = False  # default: per-pixel absolute gradients (then grow_grad2d = 8e-4)
    revised_opacity: bool = False  # default: children get 1 - sqrt(1 - o)
    grow_scale3d: float = setting(0.01, above=0)  # default: duplicate up to it, split above
    prune_opa: float = setting(0.005, above=0, below=1)  # default: pruned below
    prune_scale3d: float = setting(0.1, above=0)  # default: too large, from the first reset on
    # default: opacity resets; a multiple of `refine_every`.
    reset_every: int = setting(3000, least=1)
    pause_refine_after_reset: int = setting(0, least=0)  # default: updates without refinement


@dataclass(frozen=True)
class MetricsConfig:
    """Scores of evaluation besides PSNR and SSIM."""

    lpips: str = setting("", choices=("", *LPIPS_VARIANTS))  # variants are never compared; "": none
    lpips_weights: str = ""  # safetensors file of the network, see splats/metrics/lpips_weights.py


@dataclass(frozen=True)
class RenderConfig:
    """How views are rendered; see `splats.render.RenderSettings`."""

    # Pixels; 0 chooses by platform.
    tile_size: int = setting(0, choices=(0, 8, 16), resumable=True)
    antialiased: bool = False  # compensate the screen-space blur
    near: float = setting(0.01, above=0)  # world units
    backend: str = setting(
        "auto", choices=("auto", "xla", "mosaic_gpu", "mosaic_gpu_interpret"), resumable=True
    )
    # (tile, Gaussian) pairs per view at the start; doubled on need, reduced where unused.
    pair_capacity: int = setting(1 << 18, least=1, most=1 << 30, resumable=True)
    # Pairs per step of the XLA compositor; 0 chooses by platform.
    chunk: int = setting(0, least=0, most=1 << 20, resumable=True)
    # Visible Gaussians of a view that a device has room for where they are sharded, at the start;
    # doubled on need; 0 takes a quarter of the slots, but 4096 at least.
    exchange_capacity: int = setting(0, least=0, most=1 << 30, resumable=True)


_DECAYING = ScheduleConfig("exponential", final_fraction=0.01)
_WARMED = ScheduleConfig(
    "warmup_exponential", final_fraction=0.01, warmup_updates=1000, warmup_start=0.01
)
BILATERAL_RATE, POSES_RATE = 2e-3, 1e-5  # learning rates of gsplat


def _correction_groups(bilateral: float | None, poses: float | None) -> list[GroupConfig]:
    """Groups of the corrections per view; None leaves one out."""
    groups = []
    if bilateral is not None:
        groups.append(GroupConfig("bilateral", bilateral, 0.0, _WARMED))
    if poses is not None:
        groups.append(GroupConfig("poses", poses, 1e-6, _DECAYING))
    return groups


def splat_optimizer(
    *,
    means: float = 1.6e-4,
    scales: float = 5e-3,
    quats: float = 1e-3,
    opacities: float = 5e-2,
    sh0: float = 2.5e-3,
    shN: float = 2.5e-3 / 20,
    bilateral: float | None = None,
    poses: float | None = None,
) -> OptimizerConfig:
    """Adam with a learning rate per parameter (Kerbl et al. 2023; bilateral, poses: gsplat).

    The rate of the means falls exponentially to 1 % at the last update, and the task multiplies it
    by the scene scale. That of the bilateral grids rises from 1 % over 1,000 updates (or half of a
    shorter run), then falls like it. Groups that are None are left out; `Config` adds those that
    the model needs.
    """
    constant = ScheduleConfig("constant")
    rates = {"scales": scales, "quats": quats, "opacities": opacities, "sh0": sh0}
    groups = [GroupConfig("means", means, 0.0, _DECAYING)]
    groups += [GroupConfig(name, rate, 0.0, constant) for name, rate in rates.items()]
    if shN:
        groups.append(GroupConfig("shN", shN, 0.0, constant))
    groups += _correction_groups(bilateral, poses)
    return OptimizerConfig(
        learning_rate=1e-3,
        b1=0.9,
        b2=0.999,
        # INRIA's, since the gradient of a single Gaussian can be below the usual 1e-8.
        eps=1e-15,
        weight_decay=0.0,
        clip_norm=None,
        schedule=constant,
        groups=tuple(groups),
        # Only pose corrections decay, toward no correction, as in gsplat.
        decay_rules=((r"poses", True), (r".*", False)),
    )


def in_scene_units(optimizer: OptimizerConfig, scene_scale: float) -> OptimizerConfig:
    """The same optimizer with the learning rate of the means times the size of the scene."""
    groups = tuple(
        dataclasses.replace(group, learning_rate=group.learning_rate * scene_scale)
        if group.name == "means" and group.learning_rate is not None
        else group
        for group in optimizer.groups
    )
    return dataclasses.replace(optimizer, groups=groups)


def scaled_for_batch(
    optimizer: OptimizerConfig, batch_size: int, largest_factor: float = 8.0
) -> OptimizerConfig:
    """The same optimizer for B views per update, by the square-root rule (gsplat, Grendel-GS).

    Learning rates times sqrt(B), eps by sqrt(B), betas to 1 - B (1 - beta). The first beta would
    reach zero at B = 10, so B counts as at most `largest_factor` for all of it. Numbers of updates
    stay as they are: whoever sets the batch size divides them by B.
    """
    factor = min(float(batch_size), largest_factor)
    root = factor**0.5
    for name, beta in (("b1", optimizer.b1), ("b2", optimizer.b2)):
        if factor * (1.0 - beta) > 1.0:
            raise ConfigError(
                f"config.optimizer.{name} = {beta:g} would be negative after config.batch_scaling "
                f"= 'sqrt' for {batch_size} views; raise it to {1 - 1 / factor:.4g} or more"
            )
    groups = tuple(
        group
        if group.learning_rate is None  # it has the optimizer's own rate
        else dataclasses.replace(group, learning_rate=group.learning_rate * root)
        for group in optimizer.groups
    )
    return dataclasses.replace(
        optimizer,
        learning_rate=optimizer.learning_rate * root,
        b1=1.0 - factor * (1.0 - optimizer.b1),
        b2=1.0 - factor * (1.0 - optimizer.b2),
        eps=optimizer.eps / root,
        groups=groups,
    )


@dataclass(frozen=True)
class Config(TrainConfig):
    """A whole run. The batch size counts views per update."""

    batch_size: int = setting(1, least=1, most=2**20)
    total: Duration = setting(factory=lambda: Duration(updates=30_000))
    optimizer: OptimizerConfig = setting(factory=splat_optimizer)
    evaluation: EvaluationConfig = setting(
        factory=lambda: EvaluationConfig(every=Duration(updates=5000), batch_size=1),
        resumable=True,
    )
    # The best checkpoint is the one that held-out views say is best.
    checkpoint: CheckpointConfig = setting(
        factory=lambda: CheckpointConfig(best_metric="psnr", best_mode="max")
    )
    log: LogConfig = setting(factory=lambda: LogConfig(first=20), resumable=True)
    scene: SceneConfig = setting(factory=SceneConfig)
    model: ModelConfig = setting(factory=ModelConfig)
    losses: LossConfig = setting(factory=LossConfig)
    densify: DensifyConfig = setting(factory=DensifyConfig)
    render: RenderConfig = setting(factory=RenderConfig)
    metrics: MetricsConfig = setting(factory=MetricsConfig, resumable=True)
    # sqrt: optimizer for batch_size views, see scaled_for_batch.
    batch_scaling: str = setting("none", choices=("none", "sqrt"))
    # Update only the rows that the views of the update have seen, by Adam without bias correction.
    selective_adam: bool = False
    # Gaussians and their moments lie sharded over the fsdp axis of the mesh; visible ones travel.
    shard_gaussians: bool = setting(False, resumable=True)

    def __post_init__(self):
        if self.densify.strategy == "default":
            _check_resets(self.densify)
        _check_metrics(self.metrics)
        # The class is frozen; what is set here is what everything else reads.
        object.__setattr__(self, "optimizer", fitting_optimizer(self.optimizer, self.model))


def _check_resets(densify: DensifyConfig) -> None:
    """Raises ConfigError for opacity resets that would be missed or leave nothing to see."""
    if densify.reset_every % densify.refine_every:
        raise ConfigError(
            f"config.densify.reset_every = {densify.reset_every} must be a multiple of "
            f"config.densify.refine_every = {densify.refine_every}, or resets would be missed"
        )
    ceiling = RESET_CEILING * densify.prune_opa
    if densify.reset_every < densify.refine_stop_iter and ceiling <= FAINTEST:
        raise ConfigError(
            f"config.densify.prune_opa = {densify.prune_opa}: an opacity reset would leave "
            f"{ceiling:g} at most, and nothing below {FAINTEST:.4f} is drawn, so every Gaussian "
            "would vanish; raise it, or set config.densify.reset_every beyond refine_stop_iter"
        )


def _check_metrics(metrics: MetricsConfig) -> None:
    """Raises ConfigError for one of the two keys of LPIPS without the other."""
    if bool(metrics.lpips) != bool(metrics.lpips_weights):
        given, wanted = ("lpips", "lpips_weights") if metrics.lpips else ("lpips_weights", "lpips")
        raise ConfigError(
            f"config.metrics.{given} is set and config.metrics.{wanted} is not; LPIPS needs both "
            "(docs/splats.md, Scores)"
        )


def fitting_optimizer(optimizer: OptimizerConfig, model: ModelConfig) -> OptimizerConfig:
    """The optimizer with groups for exactly the optional parameters that the model has.

    Corrections that are switched on without a group of their own get gsplat's rates, since the
    general rate would throw the cameras about; groups of absent parameters are left out.
    """
    wanted = {
        "shN": model.sh_degree > 0,
        "bilateral": model.bilateral_grid,
        "poses": model.pose_correction,
    }
    groups = [group for group in optimizer.groups if wanted.get(group.name, True)]
    present = {group.name for group in groups}
    groups += [
        group
        for group in _correction_groups(BILATERAL_RATE, POSES_RATE)
        if wanted[group.name] and group.name not in present
    ]
    return dataclasses.replace(optimizer, groups=tuple(groups))


def scene_folder(path: str) -> Path:
    """The folder of a scene: as given, or under the folder that PODVISION_DATA names.

    Raises:
      ConfigError: it is in neither place.
    """
    return data_folder(
        path,
        "scene.path",
        "give the folder of a scene with images and a COLMAP model (sparse/0), a "
        "transforms.json or transforms_train.json",
    )
