"""A set of Gaussians between the trainer and file formats, and what every export does to it first.

All values are before activation, as trained: sizes as logarithms, opacities as logits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from splats.data.normalization import similarity_scale, transform_points
from splats.formats.harmonics import COUNTS, axis_signs, rotation_of_coefficients
from splats.formats.quaternions import from_rotation, multiply, normalized
from training.errors import InputError

# Logits of an opacity that eight bits store as 255 or 0: half a step inside (0, 1).
LARGEST_LOGIT = float(np.log(2 * 255 - 1))
_LARGEST_LOG_SIZE, _FARTHEST = 40.0, 1e18  # their exponential and square fit float32 in covariances


@dataclass(frozen=True)
class GaussianCloud:
    """N Gaussians, all arrays float32.

    means [N,3] in world units; log_scales [N,3], natural logarithms of standard deviations;
    quaternions [N,4] wxyz, any positive norm; opacity_logits [N]; harmonics [N,K,3] with K = 1, 4,
    9 or 16 coefficients by RGB, constant term first (color = max(0, value + 0.5)).
    """

    means: np.ndarray
    log_scales: np.ndarray
    quaternions: np.ndarray
    opacity_logits: np.ndarray
    harmonics: np.ndarray

    def __post_init__(self):
        count = len(self.means)
        shapes = {
            "means": (count, 3),
            "log_scales": (count, 3),
            "quaternions": (count, 4),
            "opacity_logits": (count,),
        }
        for name, shape in shapes.items():
            found = getattr(self, name).shape
            if found != shape:
                raise InputError(f"The Gaussians' {name} have shape {found}, expected {shape}.")
        found = self.harmonics.shape
        if len(found) != 3 or found[0] != count or found[1] not in COUNTS or found[2] != 3:
            raise InputError(f"The Gaussians' harmonics have shape {found}, expected (N, K, 3).")

    def __len__(self) -> int:
        return len(self.means)

    @property
    def degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return COUNTS.index(self.harmonics.shape[1])

    @staticmethod
    def of(
        means: np.ndarray,
        log_scales: np.ndarray,
        quaternions: np.ndarray,
        opacity_logits: np.ndarray,
        harmonics: np.ndarray,
    ) -> GaussianCloud:
        """The cloud of arrays of any floating type, as float32."""
        arrays = (means, log_scales, quaternions, opacity_logits, harmonics)
        with np.errstate(over="ignore", invalid="ignore"):  # `clean` finds what overflows
            return GaussianCloud(*(np.ascontiguousarray(array, np.float32) for array in arrays))

    def select(self, rows: np.ndarray) -> GaussianCloud:
        """The Gaussians at `rows` (indices or a mask)."""
        return GaussianCloud(
            self.means[rows],
            self.log_scales[rows],
            self.quaternions[rows],
            self.opacity_logits[rows],
            self.harmonics[rows],
        )


@dataclass(frozen=True)
class CleanedCloud:
    """`cloud` without the rows counted in `dead` and `non_finite`."""

    cloud: GaussianCloud
    dead: int
    non_finite: int


def clean(cloud: GaussianCloud, alive: np.ndarray | None = None) -> CleanedCloud:
    """Drops rows that are not `alive` [N] bool, then rows with a value that is not finite.

    A zero quaternion, which has no direction, counts as not finite, and so does a value whose
    exponential (sizes) or square (positions) is not finite in float32.
    """
    alive = np.ones(len(cloud), bool) if alive is None else np.asarray(alive, bool)
    kept = cloud.select(alive)
    finite = np.isfinite(kept.opacity_logits) & (np.abs(kept.quaternions).max(axis=1) > 0)
    for array in (kept.means, kept.log_scales, kept.quaternions):
        finite &= np.isfinite(array).all(axis=1)
    finite &= np.isfinite(kept.harmonics).all(axis=(1, 2))
    finite &= (kept.log_scales < _LARGEST_LOG_SIZE).all(axis=1)
    finite &= (np.abs(kept.means) < _FARTHEST).all(axis=1)
    return CleanedCloud(kept.select(finite), int(np.sum(~alive)), int(np.sum(~finite)))


def transform(cloud: GaussianCloud, similarity: np.ndarray) -> GaussianCloud:
    """The cloud moved by `similarity` [4,4]: means, sizes, orientations and harmonics.

    `transform(cloud, np.linalg.inv(scene.normalization))` brings a trained cloud back to the world
    of the data set.
    """
    scale = similarity_scale(similarity)
    rotation = similarity[:3, :3] / scale
    count = cloud.harmonics.shape[1]
    # Colors depend on the direction in the world, so that they turn with it.
    turn = rotation_of_coefficients(rotation)[:count, :count]
    return GaussianCloud.of(
        transform_points(similarity, cloud.means.astype(np.float64)),
        cloud.log_scales + np.log(scale),
        multiply(from_rotation(rotation), normalized(cloud.quaternions)),
        cloud.opacity_logits,
        np.einsum("kl,nlc->nkc", turn, cloud.harmonics.astype(np.float64)),
    )


def half_turn(cloud: GaussianCloud, axis: int) -> GaussianCloud:
    """The cloud turned by 180 degrees about coordinate `axis` (0 x, 1 y, 2 z), without rounding.

    Both other axes change their sign; that is the step between the axis conventions of formats.
    """
    signs = tuple(1 if other == axis else -1 for other in range(3))
    vector = np.array(signs, np.float32)
    coefficients = axis_signs(signs)[: cloud.harmonics.shape[1]].astype(np.float32)
    return replace(
        cloud,
        means=cloud.means * vector,
        quaternions=cloud.quaternions * np.concatenate([[1], vector]).astype(np.float32),
        harmonics=cloud.harmonics * coefficients[None, :, None],
    )


def opacities(logits: np.ndarray) -> np.ndarray:
    """Opacities in [0, 1] of `logits`, without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(logits, np.float64)))


def logits(opacity: np.ndarray) -> np.ndarray:
    """Logits of opacities; 0 and 1 become those of 1/510 from the end, so that they stay finite."""
    # Within the logarithms' range; the clip behind them decides.
    value = np.clip(np.asarray(opacity, np.float64), 1e-30, 1 - 1e-16)
    return np.clip(np.log(value) - np.log1p(-value), -LARGEST_LOGIT, LARGEST_LOGIT)
