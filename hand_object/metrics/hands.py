"""Errors of hands: joints relative to the wrist, and unsteadiness over time."""

from __future__ import annotations

import numpy as np


def mpjpe(found: np.ndarray, wanted: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Mean distance of joints [T, 21, 3] m, relative to the wrist, in mm (HOLD's `mpjpe_ra`).

    `valid` [T]: frames that count; without any, the result is NaN.
    """
    error = (found - found[:, :1]) - (wanted - wanted[:, :1])
    each = np.linalg.norm(error, axis=-1).mean(axis=1)
    return _mean(each, valid) * 1000


def placed_mpjpe(found: np.ndarray, wanted: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Mean distance of joints [T, 21, 3] m as they stand in the world, in mm."""
    return _mean(np.linalg.norm(found - wanted, axis=-1).mean(axis=1), valid) * 1000


def jerk(tracks: np.ndarray, rate: float) -> float:
    """Mean length of the third derivative of points [T, N, 3] m, in m/s^3; `rate` in Hz."""
    if len(tracks) < 4:
        return float("nan")
    return float(np.linalg.norm(np.diff(tracks, n=3, axis=0), axis=-1).mean() * rate**3)


def jitter(tracks: np.ndarray) -> float:
    """Mean length of the second difference of points [T, N, 3] m, in mm per frame^2."""
    if len(tracks) < 3:
        return float("nan")
    return float(np.linalg.norm(np.diff(tracks, n=2, axis=0), axis=-1).mean() * 1000)


def _mean(values: np.ndarray, valid: np.ndarray | None) -> float:
    chosen = values if valid is None else values[valid]
    return float(chosen.mean()) if len(chosen) else float("nan")
