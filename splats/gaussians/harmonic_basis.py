"""The real spherical harmonics of Gaussian splatting, defined once for files and renderer.

The functions are polynomials of x, y, z on the unit sphere, written with nothing but arithmetic,
so that numpy (files, in float64 on the host) and jax (renderer, in float32 on the device) take
the same ones. Band l holds the functions l^2 .. (l + 1)^2 - 1. Sign and order are those of the
files of INRIA's program (the Condon-Shortley phase is kept: coefficient 1 multiplies -y, 2 z,
3 -x); a color is max(0, 0.5 + sum of basis times coefficients).

Source: Sloan, "Efficient spherical harmonic evaluation", JCGT 2013; Kerbl et al. 2023 for the
offset of 0.5.
"""

from __future__ import annotations

from typing import Any

MAX_DEGREE = 4
CONSTANT_BASIS = 0.28209479177387814  # 1 / (2 sqrt(pi)), the value of the constant function
OFFSET = 0.5  # so that coefficients of zero are gray, in the middle of what training may reach


def polynomials(x: Any, y: Any, z: Any, degree: int) -> list[Any]:
    """Values of the (degree + 1)^2 functions at the unit vectors (x, y, z).

    Args:
      x, y, z: arrays of one shape, of numpy or of jax.
      degree: 0 to MAX_DEGREE.

    Returns:
      The first is a plain number, the others are arrays of that shape.
    """
    xx, yy, zz = x * x, y * y, z * z
    values: list[Any] = [CONSTANT_BASIS]
    if degree >= 1:
        values += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree >= 2:
        values += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.9461746957575601 * zz - 0.31539156525252005,
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
        ]
    if degree >= 3:
        values += [
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (5 * zz - 1),
            0.3731763325901154 * z * (5 * zz - 3),
            -0.4570457994644658 * x * (5 * zz - 1),
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
    return values


def rgb_to_constant(rgb: Any) -> Any:
    """The coefficient of the constant function that shows `rgb` (in [0, 1]) from every side."""
    return (rgb - OFFSET) / CONSTANT_BASIS


def constant_to_rgb(coefficient: Any) -> Any:
    """Inverse of `rgb_to_constant`; not clipped."""
    return OFFSET + CONSTANT_BASIS * coefficient
