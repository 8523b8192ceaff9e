"""Spherical harmonics to degree 3 on the host: values, rotations and mirrored axes.

K is 1, 4, 9 or 16 coefficients; the functions themselves: `splats.gaussians.harmonic_basis`.
"""

from __future__ import annotations

import functools

import numpy as np

from splats.gaussians.harmonic_basis import polynomials

COUNTS = (1, 4, 9, 16)
DEGREE = len(COUNTS) - 1  # the largest that any format of files holds


def basis(directions: np.ndarray) -> np.ndarray:
    """Values [N,16] float64 of the functions at unit `directions` [N,3]."""
    x, y, z = np.asarray(directions, np.float64).T
    return np.stack(np.broadcast_arrays(*polynomials(x, y, z, DEGREE)), axis=1)


@functools.cache
def _samples() -> tuple[np.ndarray, np.ndarray]:
    """64 spread directions [64,3] and the pseudo-inverse [16,64] of the functions there."""
    # A spiral with the golden angle: spread evenly for any number, and four times as many as the
    # unknowns, so that the fit is well conditioned.
    index = np.arange(64) + 0.5
    z, angle = 1 - index / 32, np.pi * (1 + np.sqrt(5)) * index
    radius = np.sqrt(1 - z * z)
    directions = np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)
    return directions, np.linalg.pinv(basis(directions))


def rotation_of_coefficients(rotation: np.ndarray) -> np.ndarray:
    """The matrix [16,16] by which coefficients turn when the object turns by `rotation` [3,3].

    The turned function is f'(d) = f(R^T d). Every degree is closed under rotation, so that fitting
    f' at 64 directions is exact; this equals the block-diagonal Wigner matrix of the real basis.
    """
    directions, inverse = _samples()
    matrix = inverse @ basis(directions @ rotation)
    # Between bands the exact matrix is zero: what rounding left there is dropped.
    keep = np.zeros((16, 16), bool)
    for low, high in ((0, 1), (1, 4), (4, 9), (9, 16)):
        keep[low:high, low:high] = True
    return np.where(keep, matrix, 0.0)


def axis_signs(signs: tuple[int, ...]) -> np.ndarray:
    """Signs [16] of the coefficients when the three axes are multiplied by `signs`."""
    # Any direction at which no function is zero.
    direction = np.array([[0.31, 0.53, 0.79]]) / np.linalg.norm([0.31, 0.53, 0.79])
    return np.sign(basis(direction * np.array(signs))[0] * basis(direction)[0])
