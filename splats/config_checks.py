"""Ranges of the settings of a splat run: what no run could use is refused before anything loads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from training.errors import ConfigError

if TYPE_CHECKING:
    from splats.config import Config, MetricsConfig

RESET_CEILING = 2.0  # times densify.minimum_opacity: what an opacity reset leaves at most
FAINTEST = 1.0 / 255.0  # opacity below which nothing is drawn
BATCH_SCALINGS = ("none", "sqrt")
LPIPS_VARIANTS = ("alex", "vgg", "vgg_unnormalized")
# Inclusive and exclusive lower bounds of numbers; see the comments of the fields.
_AT_LEAST = {
    "scene.factor": 1,
    "model.random_points": 4,
    "model.initial_capacity": 1,
    "model.capacity": 1,
    "model.sh_every": 1,
    "losses.opacity": 0,
    "losses.scale": 0,
    "losses.depth": 0,
    "losses.total_variation": 0,
    "densify.start": 0,
    "densify.every": 1,
    "densify.growth": 1,
    "densify.noise": 0,
    "densify.reset_every": 1,
    "densify.pause_after_reset": 0,
    "render.pair_capacity": 1,
    "render.chunk": 0,
    "render.exchange_capacity": 0,
}
_ABOVE = {
    "scene.scale_factor": 0,
    "model.init_scale": 0,
    "densify.gradient": 0,
    "densify.small_scale": 0,
    "densify.prune_scale": 0,
    "render.near": 0,
}
_SHARES = ("model.init_opacity", "densify.minimum_opacity")  # strictly between 0 and 1
_CHOICES = {
    "densify.strategy": ("mcmc", "default", "none"),
    "model.initialization": ("points", "random"),
    "model.sh_degree": (0, 1, 2, 3),
    "render.tile_size": (0, 8, 16),
    "scene.kind": (None, "colmap", "nerfstudio", "blender"),
    "scene.alpha": (None, "mask", "white"),
}


def check_config(config: Config) -> None:
    """Raises ConfigError for settings out of range or that cannot work together."""
    for key, choices in _CHOICES.items():
        if _value(config, key) not in choices:
            listed = ", ".join(map(str, choices))
            raise ConfigError(f"config.{key} = {_value(config, key)!r}; use one of {listed}")
    for group in ("scene", "model", "losses", "densify", "render"):
        for name, value in vars(getattr(config, group)).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"config.{group}.{name} = {value} must be finite")
    for key, bound in _AT_LEAST.items():
        value = _value(config, key)
        if value is not None and value < bound:
            raise ConfigError(f"config.{key} = {value} must be {bound} or more")
    for key, bound in _ABOVE.items():
        if not _value(config, key) > bound:
            raise ConfigError(f"config.{key} = {_value(config, key)} must be above {bound}")
    for key in _SHARES:
        if not 0 < _value(config, key) < 1:
            raise ConfigError(
                f"config.{key} = {_value(config, key)} must lie strictly between 0 and 1"
            )
    if config.batch_scaling not in BATCH_SCALINGS:
        raise ConfigError(
            f"config.batch_scaling = {config.batch_scaling!r}; use {' or '.join(BATCH_SCALINGS)}"
        )
    densify = config.densify
    if densify.strategy == "default" and densify.reset_every % densify.every:
        raise ConfigError(
            f"config.densify.reset_every = {densify.reset_every} must be a multiple of "
            f"config.densify.every = {densify.every}, or resets would be missed"
        )
    ceiling = RESET_CEILING * densify.minimum_opacity
    if densify.strategy == "default" and densify.reset_every < densify.stop and ceiling <= FAINTEST:
        raise ConfigError(
            f"config.densify.minimum_opacity = {densify.minimum_opacity}: an opacity reset would "
            f"leave {ceiling:g} at most, and nothing below {FAINTEST:.4f} is drawn, so every "
            "Gaussian would vanish; raise it, or set config.densify.reset_every beyond stop"
        )
    if not 0 <= config.losses.ssim <= 1:
        raise ConfigError(f"config.losses.ssim = {config.losses.ssim} must lie between 0 and 1")
    _check_metrics(config.metrics)


def _check_metrics(metrics: MetricsConfig) -> None:
    """Raises ConfigError for an unknown variant, or for one of the two keys without the other."""
    if metrics.lpips and metrics.lpips not in LPIPS_VARIANTS:
        raise ConfigError(
            f"config.metrics.lpips = {metrics.lpips!r} is no variant; use "
            f"{', '.join(LPIPS_VARIANTS)}, or leave it empty"
        )
    if bool(metrics.lpips) != bool(metrics.lpips_weights):
        given, wanted = ("lpips", "lpips_weights") if metrics.lpips else ("lpips_weights", "lpips")
        raise ConfigError(
            f"config.metrics.{given} is set and config.metrics.{wanted} is not; LPIPS needs both "
            "(docs/splats.md, Scores)"
        )


def _value(config: Config, key: str) -> Any:
    group, name = key.split(".")
    return getattr(getattr(config, group), name)
