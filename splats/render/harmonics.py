"""Colors from spherical harmonics on the device, differentiable in direction and coefficients.

Vocabulary: N Gaussians; B = (degree + 1)^2 basis functions; direction = from the camera's center to
the Gaussian's mean. The functions themselves: `splats.gaussians.harmonic_basis`.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from splats.gaussians.harmonic_basis import MAX_DEGREE, OFFSET, polynomials
from splats.render.unit_vectors import unit_vectors


def basis(directions: jax.Array, degree: int) -> jax.Array:
    """Values [N, (degree + 1)^2] of the basis for unit directions [N, 3]."""
    x, y, z = directions[:, 0], directions[:, 1], directions[:, 2]
    values = polynomials(x, y, z, degree)
    # The constant function is a plain number.
    return jnp.stack([jnp.broadcast_to(v, directions.shape[:1]) for v in values], axis=-1)


def evaluate(
    directions: jax.Array,
    coefficients: jax.Array,
    active_degree: jax.Array | int | None = None,
) -> jax.Array:
    """Sum of basis times coefficients, without the offset.

    Args:
      directions: [N, 3], any length.
      coefficients: [N, B, 3] with B in (1, 4, 9, 16, 25).
      active_degree: bands above it are ignored and get zero gradient; may be traced, so that
        raising it during training compiles nothing. None uses all bands.

    Returns:
      [N, 3].
    """
    count = coefficients.shape[1]
    degree = math.isqrt(count) - 1
    if (degree + 1) ** 2 != count or degree > MAX_DEGREE:
        raise ValueError(f"{count} coefficients per channel: expected 1, 4, 9, 16 or 25")
    values = basis(unit_vectors(directions), degree)
    if active_degree is not None:
        bands = jnp.array([math.isqrt(i) for i in range(count)])
        # Masked and not cut off: a shape cannot depend on a traced degree.
        values = jnp.where((bands <= active_degree)[None, :], values, 0.0)
    return jnp.sum(values[:, :, None] * coefficients, axis=1)


def view_colors(
    means: jax.Array,
    camera_center: jax.Array,
    coefficients: jax.Array,
    active_degree: jax.Array | int | None = None,
) -> jax.Array:
    """Colors [N, 3] >= 0 of Gaussians at means [N, 3] seen from camera_center [3].

    The gradient flows through the direction to the means and to the camera.
    """
    directions = means - camera_center[None, :]
    return jnp.maximum(evaluate(directions, coefficients, active_degree) + OFFSET, 0.0)
