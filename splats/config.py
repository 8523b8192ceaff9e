"""Typed configuration of a splat training run."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path

from splats.config_checks import check_config
from splats.data.splits import SplitConfig
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

SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class SceneConfig:
    """Which photographs."""

    path: str = SYNTHETIC  # folder of the scene, absolute or under PODVISION_DATA
    images: str = "images"  # image folder inside a COLMAP scene
    factor: int | None = None  # shrink the images by this integer
    split: SplitConfig = field(default_factory=SplitConfig)  # held-out views are mandatory
    normalize: bool = True  # center, rotate and scale the world
    scale_factor: float = 1.0  # multiplies the scene scale, and with it rates and thresholds
    cache: str | None = None  # writable folder for undistorted and shrunk images
    kind: str | None = None  # colmap, nerfstudio or blender, where a folder holds several
    masks: str = "masks"  # folder of NAME.png masks in the scene; black pixels are ignored
    alpha: str | None = None  # transparency: mask or white (None: white for blender only)


@dataclass(frozen=True)
class ModelConfig:
    """The Gaussians at the start, and how many there may be."""

    initialization: str = "points"  # points (of the reconstruction) or random
    random_points: int = 100_000  # random only
    init_opacity: float = 0.1
    init_scale: float = 1.0  # times the distance to the three nearest points
    sh_degree: int = 3  # of the spherical harmonics, 0 to 3
    sh_every: int = 1000  # updates between degrees
    initial_capacity: int = 65_536  # slots; doubled when they fill up
    capacity: int = 1_000_000  # slots at most
    bilateral_grid: bool = False  # a color correction per training view
    pose_correction: bool = False  # a pose correction per training view


@dataclass(frozen=True)
class LossConfig:
    """Coefficients; l1 has 1 - ssim."""

    ssim: float = 0.2
    opacity: float = 0.0  # mean opacity of the visible Gaussians
    scale: float = 0.0  # mean linear scale of the visible Gaussians
    depth: float = 0.0  # L1 of disparity times scene scale at reconstructed points (COLMAP scenes)
    total_variation: float = 10.0  # of bilateral grids
    random_background: bool = False  # a new color behind each view


@dataclass(frozen=True)
class DensifyConfig:
    """When and how Gaussians are added and removed. Lengths are fractions of the scene scale."""

    strategy: str = "mcmc"  # mcmc, default (adaptive density control) or none
    start: int = 500  # first refinement after this update
    stop: int = 25_000  # no refinement from this update on
    every: int = 100  # updates
    minimum_opacity: float = 0.005  # dead below
    growth: float = 1.05  # mcmc: factor per refinement
    noise: float = 5e5  # mcmc: times the learning rate of the means
    noise_on_visible: bool = False  # mcmc: only Gaussians that the update has seen
    gradient: float = 2e-4  # default: threshold in normalized device units
    absolute: bool = False  # default: per-pixel absolute gradients (then gradient = 8e-4)
    revised_opacity: bool = False  # default: children get 1 - sqrt(1 - o)
    small_scale: float = 0.01  # default: duplicate up to it, split above
    prune_scale: float = 0.1  # default: too large, from the first reset on
    reset_every: int = 3000  # default: opacity resets; a multiple of `every`
    pause_after_reset: int = 0  # default: updates without refinement after a reset


@dataclass(frozen=True)
class MetricsConfig:
    """Scores of evaluation besides PSNR and SSIM."""

    lpips: str = ""  # none, alex, vgg or vgg_unnormalized: variants that are never compared
    lpips_weights: str = ""  # safetensors file of the network, see splats/metrics/lpips_weights.py


@dataclass(frozen=True)
class RenderConfig:
    """How views are rendered; see `splats.render.RenderSettings`."""

    tile_size: int = 0  # pixels, 8 or 16; 0 chooses by platform
    antialiased: bool = False  # compensate the screen-space blur
    near: float = 0.01  # world units
    backend: str = "auto"
    pair_capacity: int = 1 << 18  # (tile, Gaussian) pairs per view at the start; doubled on need
    chunk: int = 0  # pairs per step of the XLA compositor; 0 chooses by platform
    # Visible Gaussians of a view that a device has room for where they are sharded, at the start;
    # doubled on need; 0 takes a quarter of the slots, but 4096 at least.
    exchange_capacity: int = 0


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
        eps=1e-15,
        weight_decay=0.0,
        clip_norm=None,
        schedule=constant,
        groups=tuple(groups),
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

    batch_size: int = 1
    total: Duration = field(default_factory=lambda: Duration(updates=30_000))
    optimizer: OptimizerConfig = field(default_factory=splat_optimizer)
    evaluation: EvaluationConfig = field(
        default_factory=lambda: EvaluationConfig(every=Duration(updates=5000), batch_size=1)
    )
    log: LogConfig = field(default_factory=lambda: LogConfig(first=20))
    scene: SceneConfig = field(default_factory=SceneConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    densify: DensifyConfig = field(default_factory=DensifyConfig)
    render: RenderConfig = field(default_factory=RenderConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    batch_scaling: str = "none"  # or sqrt: optimizer for batch_size views, see scaled_for_batch
    # Update only the rows that the views of the update have seen, by Adam without bias correction.
    selective_adam: bool = False
    # Gaussians and their moments lie sharded over the fsdp axis of the mesh; visible ones travel.
    shard_gaussians: bool = False

    def __post_init__(self):
        check_config(self)
        object.__setattr__(self, "optimizer", fitting_optimizer(self.optimizer, self.model))


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
    direct = Path(path).expanduser()
    if direct.is_dir():
        return direct
    root = os.environ.get("PODVISION_DATA")
    if root and (Path(root) / path).is_dir():
        return Path(root) / path
    where = f"nor under PODVISION_DATA = {root}" if root else "and PODVISION_DATA is not set"
    raise ConfigError(
        f"config.scene.path = {path!r} is no folder here {where}; give the folder of a scene with "
        "images and a COLMAP model (sparse/0), a transforms.json or transforms_train.json"
    )
