"""Lens distortion: from normalized pinhole coordinates to normalized image coordinates.

Vocabulary: `plane` [...,2] float64 is (x/z, y/z) of a ray; `image` [...,2] is what the lens makes
of it, so that pixel = focal * image + principal point. r is the plane radius, theta = atan(r).
Formulas: COLMAP's camera models (`src/colmap/sensor/models.h`), which follow OpenCV for the
polynomial ones; RAD_TAN_THIN_PRISM_FISHEYE is Project Aria's Fisheye624 with six radial terms.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from splats.data.camera_models import Camera
from training.errors import InputError

Distort = Callable[[np.ndarray, tuple[float, ...]], np.ndarray]


def distort(camera: Camera, plane: np.ndarray) -> np.ndarray:
    """The lens of `camera` applied to `plane`; InputError for a model without a plane to map to."""
    if camera.model in ("PINHOLE", "SIMPLE_PINHOLE"):
        return np.asarray(plane, np.float64)
    if camera.model not in _DISTORT:
        raise InputError(
            f"Images of a {camera.model} camera cannot be undistorted to one pinhole image; cut "
            "them into perspective views first."
        )
    return _DISTORT[camera.model](np.asarray(plane, np.float64), camera.distortion)


def _join(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack([x, y], axis=-1)


def _square_radius(plane: np.ndarray) -> np.ndarray:
    return np.sum(plane * plane, axis=-1)


def _tangential(plane: np.ndarray, p1: float, p2: float) -> np.ndarray:
    """Brown's decentering term in OpenCV's order of coefficients."""
    x, y = plane[..., 0], plane[..., 1]
    square = _square_radius(plane)
    return _join(
        2 * p1 * x * y + p2 * (square + 2 * x * x), 2 * p2 * x * y + p1 * (square + 2 * y * y)
    )


def _polynomial(variable: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
    """1 + c1 v + c2 v^2 + ... by Horner's rule."""
    value = np.zeros_like(variable)
    for coefficient in reversed(coefficients):
        value = (value + coefficient) * variable
    return 1 + value


def _radial(plane: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
    return plane * _polynomial(_square_radius(plane), coefficients)[..., None]


def _opencv(plane: np.ndarray, parameters: tuple[float, ...]) -> np.ndarray:
    k1, k2, p1, p2 = parameters
    return _radial(plane, (k1, k2)) + _tangential(plane, p1, p2)


def _full_opencv(plane: np.ndarray, parameters: tuple[float, ...]) -> np.ndarray:
    k1, k2, p1, p2, k3, k4, k5, k6 = parameters
    square = _square_radius(plane)
    factor = _polynomial(square, (k1, k2, k3)) / _polynomial(square, (k4, k5, k6))
    return plane * factor[..., None] + _tangential(plane, p1, p2)


def _equidistant(plane: np.ndarray) -> np.ndarray:
    """Radius theta instead of r."""
    radius = np.sqrt(_square_radius(plane))
    small = radius < 1e-8  # where atan(r) / r is 1 to the last digit
    factor = np.where(small, 1.0, np.arctan(radius) / np.where(small, 1.0, radius))
    return plane * factor[..., None]


def _fisheye(plane: np.ndarray, parameters: tuple[float, ...]) -> np.ndarray:
    return _radial(_equidistant(plane), parameters)


def _field_of_view(plane: np.ndarray, parameters: tuple[float, ...]) -> np.ndarray:
    """Devernay and Faugeras: r_image = atan(2 r tan(omega / 2)) / omega."""
    (omega,) = parameters
    # The limit of a lens without distortion, where the formula is 0 / 0.
    if abs(omega) < 1e-8:
        return plane
    radius = np.sqrt(_square_radius(plane))
    small = radius < 1e-8
    slope = 2 * np.tan(omega / 2)
    safe = np.where(small, 1.0, radius)
    factor = np.where(small, slope / omega, np.arctan(safe * slope) / (safe * omega))
    return plane * factor[..., None]


def _thin_prism_fisheye(plane: np.ndarray, parameters: tuple[float, ...]) -> np.ndarray:
    k1, k2, p1, p2, k3, k4, s1, s2 = parameters
    angle = _equidistant(plane)
    square = _square_radius(angle)[..., None]
    radial = _radial(angle, (k1, k2, k3, k4))
    return radial + _tangential(angle, p1, p2) + square * np.array([s1, s2])


def _aria_fisheye(plane: np.ndarray, parameters: tuple[float, ...]) -> np.ndarray:
    radial = _radial(_equidistant(plane), parameters[:6])
    p0, p1, s0, s1, s2, s3 = parameters[6:]
    square = _square_radius(radial)[..., None]
    prism = square * np.array([s0, s2]) + square**2 * np.array([s1, s3])
    # Swapped, since Aria's p0 has the place of OpenCV's p2.
    return radial + _tangential(radial, p1, p0) + prism


def _division(plane: np.ndarray, parameters: tuple[float, ...]) -> np.ndarray:
    """Fitzgibbon's r = r_image / (1 + k r_image^2), solved for r_image; NaN without a root."""
    (k,) = parameters
    discriminant = 1 - 4 * k * _square_radius(plane)
    root = np.sqrt(np.where(discriminant < 0, np.nan, discriminant))
    return plane * (2 / (1 + root))[..., None]


def _enhanced_unified(plane: np.ndarray, parameters: tuple[float, ...]) -> np.ndarray:
    alpha, beta = parameters
    depth = np.sqrt(beta * _square_radius(plane) + 1)
    return plane / (alpha * depth + 1 - alpha)[..., None]


_DISTORT: dict[str, Distort] = {
    "SIMPLE_RADIAL": _radial,
    "RADIAL": _radial,
    "OPENCV": _opencv,
    "FULL_OPENCV": _full_opencv,
    "OPENCV_FISHEYE": _fisheye,
    "SIMPLE_RADIAL_FISHEYE": _fisheye,
    "RADIAL_FISHEYE": _fisheye,
    "SIMPLE_FISHEYE": _fisheye,
    "FISHEYE": _fisheye,
    "FOV": _field_of_view,
    "THIN_PRISM_FISHEYE": _thin_prism_fisheye,
    "RAD_TAN_THIN_PRISM_FISHEYE": _aria_fisheye,
    "SIMPLE_DIVISION": _division,
    "DIVISION": _division,
    "EUCM": _enhanced_unified,
}


def largest_radius(camera: Camera) -> float:
    """The plane radius at which the lens folds back (its image radius stops growing), at most 100.

    Rays outside would be drawn a second time, so that their pixels are invalid. The diagonal
    through the first quadrant stands for all directions: decentering terms are small.
    """
    # Equal steps of the angle, since wide lenses fold at angles, not at plane radii.
    radius = np.tan(np.linspace(0, np.arctan(100.0), 20_001))
    image = distort(camera, radius[:, None] * np.full(2, np.sqrt(0.5)))
    growing = np.diff(np.sqrt(_square_radius(image))) > 0
    return float(radius[-1] if growing.all() else radius[np.argmin(growing)])


def undistort_points(camera: Camera, image: np.ndarray, iterations: int = 30) -> np.ndarray:
    """Plane coordinates [...,2] of normalized `image` coordinates by Newton's method.

    NaN where no ray inside `largest_radius` maps there (residual above 1e-8).
    """
    plane = np.array(image, np.float64)
    bound, step = largest_radius(camera), 1e-6
    for _ in range(iterations):
        # The derivative by differences, so that no lens needs one of its own.
        value = distort(camera, plane)
        columns = [distort(camera, plane + np.array(d)) - value for d in ([step, 0], [0, step])]
        # Columns of the derivative [[a, b], [c, d]].
        (a, c), (b, d) = (np.moveaxis(column, -1, 0) / step for column in columns)
        determinant = a * d - b * c
        determinant = np.where(np.abs(determinant) < 1e-12, np.nan, determinant)
        error = image - value
        move = _join(
            (d * error[..., 0] - b * error[..., 1]) / determinant,
            (a * error[..., 1] - c * error[..., 0]) / determinant,
        )
        # Half a unit a step keeps wide lenses from jumping over their fold.
        length = np.sqrt(_square_radius(move))[..., None]
        limit = 0.5 * (1 + np.sqrt(_square_radius(plane))[..., None])
        plane = plane + move * np.minimum(1, limit / np.maximum(length, 1e-300))
    residual = np.abs(distort(camera, plane) - image).max(axis=-1)
    good = (residual < 1e-8) & (np.sqrt(_square_radius(plane)) <= bound)
    return np.where(good[..., None], plane, np.nan)
