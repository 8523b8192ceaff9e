"""Which terms a loss has, and how they add up over the nodes."""

from __future__ import annotations

from collections.abc import Iterable

import jax.numpy as jnp

from hand_object.loss_config import LossConfig
from training.loss import LossTerm, Total


def loss_terms(config: LossConfig, *, masks: bool, hands: bool) -> dict[str, LossTerm]:
    """The declared terms; those with a coefficient of 0 are left out.

    Args:
      masks: whether any frame has one.
      hands: whether there is a hand.
    """
    terms = {
        "rgb": LossTerm(config.rgb),
        "mask": LossTerm(config.mask, required=masks),
        "eikonal": LossTerm(config.eikonal),
        # Zero where the mask leaves nothing free, or where nothing is left to be made sparse.
        "sparse": LossTerm(config.sparse, required=False),
        "template": LossTerm(config.template, required=hands),
        # Zero until a pose has moved.
        "poses": LossTerm(config.poses, required=False),
    }
    return {name: term for name, term in terms.items() if getattr(config, name)}


def mean_of(totals: Iterable[Total]) -> Total:
    """The mean of the means of several totals; one that weighs nothing does not count."""
    totals = list(totals)
    means = sum((total.mean() for total in totals), jnp.float32(0.0))
    return Total(means, sum(((t.weight > 0).astype(jnp.float32) for t in totals), jnp.float32(0)))
