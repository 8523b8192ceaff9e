"""Settings of a splat run that cannot work together are refused before anything loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.errors import ConfigError

if TYPE_CHECKING:
    from splats.config import Config, DensifyConfig, MetricsConfig

RESET_CEILING = 2.0  # times densify.prune_opa: what an opacity reset leaves at most
FAINTEST = 1.0 / 255.0  # opacity below which nothing is drawn


def check_config(config: Config) -> None:
    """Raises ConfigError for settings that contradict each other."""
    if config.densify.strategy == "default":
        _check_resets(config.densify)
    _check_metrics(config.metrics)


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
