"""The terms of the loss that a config asks for, with their coefficients."""

from __future__ import annotations

from splats.config import LossConfig
from training.loss import LossTerm


def loss_terms(
    losses: LossConfig, bilateral_grid: bool, scene_scale: float, transparent: bool = False
) -> dict[str, LossTerm]:
    """The declared terms: those of the images, and what has a coefficient besides.

    Args:
      transparent: whether photographs have an opacity to compare with.
      bilateral_grid: whether the model has one.
      scene_scale: world units. A disparity is 1 / length, so that times it the term for depth has
        no unit (gsplat).
    """
    terms = {"l1": LossTerm(1.0 - losses.ssim), "ssim": LossTerm(losses.ssim)}
    optional = {
        "opacity": losses.opacity,
        "scale": losses.scale,
        "depth": losses.depth * scene_scale,
        "alpha": losses.alpha if transparent else 0.0,
        "tv": losses.total_variation if bilateral_grid else 0.0,
    }
    for name, coefficient in optional.items():
        if coefficient:
            terms[name] = LossTerm(coefficient, required=False)
    return terms
