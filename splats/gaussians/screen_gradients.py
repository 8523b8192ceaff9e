"""Statistics of the screen-space gradient: what the refinement decides by.

For each view and Gaussian the gradient of that view's loss with respect to the projected mean is
taken in normalized device units (pixels times half the image size), so that thresholds do not
depend on the resolution; its norm is added up over the views that saw the Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

QUANTILES = (0.5, 0.9, 0.99, 1.0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ScreenGradients:
    """Sums since the last refinement, float32 [N]: gradient norms, and views that saw the row."""

    total: jax.Array
    views: jax.Array

    def mean(self) -> jax.Array:
        """float32 [N], zero for rows that no view saw."""
        return self.total / jnp.maximum(self.views, 1.0)


def empty(capacity: int) -> ScreenGradients:
    """No views seen."""
    return ScreenGradients(jnp.zeros(capacity), jnp.zeros(capacity))


def accumulate(
    statistics: ScreenGradients, gradients: jax.Array, width: int, height: int, views: float
) -> ScreenGradients:
    """Adds the norms of one batch's gradients.

    Args:
      gradients: float32 [views, N, 2], of the loss *averaged over views*, per pixel.
      views: number of views in the average; undoes it.
    """
    # Pixels to normalized device units, which span 2 over the image, and the average undone: the
    # thresholds of the papers are for the loss of one view.
    half = jnp.asarray([width / 2.0, height / 2.0]) * views
    norms = jnp.linalg.norm(gradients * half[None, None, :], axis=-1)
    return ScreenGradients(statistics.total + jnp.sum(norms, axis=0), statistics.views)


def masked_quantiles(values: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """The 50, 90, 99 and 100 % quantiles (lower) of `values` [N] where `mask`; 0 if none."""
    # Sorted with the rest at the end, since the number that counts is not static.
    ordered = jnp.sort(jnp.where(mask, values, jnp.inf))
    count = jnp.sum(mask)
    result = {}
    for quantile in QUANTILES:
        index = jnp.floor(quantile * jnp.maximum(count - 1, 0)).astype(jnp.int32)
        value = jnp.where(count > 0, ordered[index], 0.0)
        result[f"gradient_q{round(quantile * 100)}"] = value
    return result
