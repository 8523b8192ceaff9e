"""Colors from real spherical harmonics up to degree 4, in the sign and order of 3DGS files.

Vocabulary: N Gaussians; B = (degree + 1)^2 basis functions; direction = from the camera's center to
the Gaussian's mean. Band l holds the functions l^2 .. (l + 1)^2 - 1.

Source: Sloan, Efficient spherical harmonic evaluation, JCGT 2013 (the polynomials on the unit
sphere are written out here); Kerbl et al. 2023 for color = max(0, SH + 0.5).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

MAX_DEGREE = 4
CONSTANT_BASIS = 0.28209479177387814  # 1 / (2 sqrt(pi)).


def rgb_to_constant(rgb: jax.Array) -> jax.Array:
    """The degree-0 coefficient that shows `rgb` (in [0, 1]) from every side."""
    return (rgb - 0.5) / CONSTANT_BASIS


def basis(directions: jax.Array, degree: int) -> jax.Array:
    """Values [N, (degree + 1)^2] of the basis for unit directions [N, 3]."""
    x, y, z = directions[:, 0], directions[:, 1], directions[:, 2]
    xx, yy, zz = x * x, y * y, z * z
    values = [jnp.full_like(x, CONSTANT_BASIS)]
    if degree >= 1:
        values += [-0.48860251190292 * y, 0.48860251190292 * z, -0.48860251190292 * x]
    if degree >= 2:
        values += [
            1.092548430592079 * x * y,
            -1.092548430592079 * y * z,
            0.9461746957575601 * zz - 0.3153915652525201,
            -1.092548430592079 * x * z,
            0.5462742152960395 * (xx - yy),
        ]
    if degree >= 3:
        values += [
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644657 * y * (5 * zz - 1),
            0.3731763325901154 * z * (5 * zz - 3),
            -0.4570457994644657 * x * (5 * zz - 1),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ]
    if degree >= 4:
        values += [
            2.5033429417967046 * x * y * (xx - yy),
            -1.7701307697799304 * y * z * (3 * xx - yy),
            0.9461746957575601 * x * y * (7 * zz - 1),
            -0.6690465435572892 * y * z * (7 * zz - 3),
            0.10578554691520431 * (35 * zz * zz - 30 * zz + 3),
            -0.6690465435572892 * x * z * (7 * zz - 3),
            0.47308734787878004 * (xx - yy) * (7 * zz - 1),
            -1.7701307697799304 * x * z * (xx - 3 * yy),
            0.6258357354491761 * (xx * (xx - 3 * yy) - yy * (3 * xx - yy)),
        ]
    return jnp.stack(values, axis=-1)


def unit_directions(vectors: jax.Array) -> jax.Array:
    """Normalizes [N, 3]; the zero vector stays zero with zero gradient."""
    squared = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
    is_zero = squared < 1e-30
    return vectors * jnp.where(is_zero, 0.0, jax.lax.rsqrt(jnp.where(is_zero, 1.0, squared)))


def evaluate(
    directions: jax.Array,
    coefficients: jax.Array,
    active_degree: jax.Array | int | None = None,
) -> jax.Array:
    """Sum of basis times coefficients, without the offset of 0.5.

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
    values = basis(unit_directions(directions), degree)
    if active_degree is not None:
        bands = jnp.array([math.isqrt(i) for i in range(count)])
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
    return jnp.maximum(evaluate(directions, coefficients, active_degree) + 0.5, 0.0)
