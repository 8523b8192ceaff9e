"""Random Gaussians for the tests of formats."""

from __future__ import annotations

import numpy as np

from splats.formats.cloud import GaussianCloud, opacities
from splats.formats.quaternions import normalized


def random_cloud(count: int = 700, degree: int = 3, seed: int = 0) -> GaussianCloud:
    """Gaussians of the spread that training gives: sizes around e^-4, harmonics around 0.15."""
    rng = np.random.default_rng(seed)
    coefficients = (degree + 1) ** 2
    return GaussianCloud.of(
        rng.normal(size=(count, 3)) * 3,
        rng.normal(-4, 1, (count, 3)),
        rng.normal(size=(count, 4)),
        rng.normal(0, 2, count),
        rng.normal(0, 0.15, (count, coefficients, 3)),
    )


def covariances(cloud: GaussianCloud) -> np.ndarray:
    """[N,3,3]: what rotation and size mean together, whatever the sign of the quaternion."""
    from splats.data.capture_reader import rotation_from_quaternion

    factor = rotation_from_quaternion(cloud.quaternions.astype(np.float64))
    factor = factor * np.exp(cloud.log_scales.astype(np.float64))[:, None, :]
    return factor @ factor.transpose(0, 2, 1)


def differences(a: GaussianCloud, b: GaussianCloud) -> dict[str, float]:
    """Largest absolute difference of each quantity; quaternions up to their sign."""
    first, second = normalized(a.quaternions), normalized(b.quaternions)
    same = np.abs(first - second).max(axis=1)
    opposite = np.abs(first + second).max(axis=1)
    higher = np.abs(a.harmonics[:, 1:] - b.harmonics[:, 1:])
    return {
        "mean": float(np.abs(a.means - b.means).max()),
        "log_scale": float(np.abs(a.log_scales - b.log_scales).max()),
        "turn": float(np.minimum(same, opposite).max()),
        "opacity": float(np.abs(opacities(a.opacity_logits) - opacities(b.opacity_logits)).max()),
        "constant": float(np.abs(a.harmonics[:, 0] - b.harmonics[:, 0]).max()),
        "higher": float(higher.max(initial=0)),
    }
