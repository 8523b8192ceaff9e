"""Quaternions in wxyz order on the host: products, normalizing, and the smallest-three codes."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation


def normalized(quaternions: np.ndarray) -> np.ndarray:
    """Unit quaternions [N,4] float64; a zero quaternion becomes the identity."""
    values = np.asarray(quaternions, np.float64)
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    identity = np.array([1.0, 0.0, 0.0, 0.0])[None, :]
    return np.where(norm > 0, values / np.where(norm > 0, norm, 1), identity)


def from_rotation(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternion [4] of a rotation matrix [3,3]."""
    # SciPy puts w last.
    x, y, z, w = Rotation.from_matrix(rotation).as_quat()
    return np.array([w, x, y, z])


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Hamilton product of `a` [4] with each of `b` [N,4]: first turn by b, then by a."""
    w, x, y, z = a
    matrix = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
    return b @ matrix.T


def drop_largest(quaternions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index [N] of the largest component and the other three [N,3], signs such that it is positive.

    Ties go to the first component. The three lie within +-sqrt(1/2).
    """
    unit = normalized(quaternions)
    # The largest is at least 1/2, so that its root is exact where it is computed from the others.
    largest = np.abs(unit).argmax(axis=1)
    rows = np.arange(len(unit))
    unit = unit * np.where(unit[rows, largest] < 0, -1, 1)[:, None]
    others = unit[np.arange(4)[None, :] != largest[:, None]].reshape(-1, 3)
    return largest, others


def restore_largest(largest: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Inverse of `drop_largest`, up to rounding: unit quaternions [N,4]."""
    missing = np.sqrt(np.maximum(0, 1 - np.sum(others * others, axis=1)))
    result = np.zeros((len(largest), 4))
    here = np.arange(4)[None, :] == largest[:, None]
    result[here] = missing
    result[~here] = others.ravel()
    return result
