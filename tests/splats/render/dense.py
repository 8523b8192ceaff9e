"""A compositor without tiles, written as the sequential definition; differentiable by autodiff."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def dense_composite(means2d, conics, colors, opacities, background, depths, width, height):
    """Image [H, W, C] and alpha [H, W], one Gaussian after the other over all pixels."""
    y, x = jnp.meshgrid(jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij")
    order = jnp.argsort(depths, stable=True)

    def draw(state, index):
        image, left, stopped = state
        dx, dy = means2d[index, 0] - x, means2d[index, 1] - y
        a, b, c = conics[index]
        sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
        alpha = jnp.minimum(0.99, opacities[index] * jnp.exp(-sigma))
        alpha = jnp.where((sigma >= 0) & (alpha >= 1 / 255), alpha, 0.0)
        stopped = stopped | (left * (1 - alpha) <= 1e-4)
        alpha = jnp.where(stopped, 0.0, alpha)
        image = image + (alpha * left)[:, :, None] * colors[index][None, None, :]
        return (image, left * (1 - alpha), stopped), None

    start = (
        jnp.zeros((height, width, colors.shape[1])),
        jnp.ones((height, width)),
        jnp.zeros((height, width), bool),
    )
    (image, left, _), _ = jax.lax.scan(draw, start, order)
    return image + left[:, :, None] * background[None, None, :], 1 - left
