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


def jerk(tracks: np.ndarray, rate: float, valid: np.ndarray | None = None) -> float:
    """Mean length of the third derivative of points [T, N, 3] m, in m/s^3; `rate` in Hz."""
    return _mean_difference(tracks, 3, valid) * rate**3


def jitter(tracks: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Mean length of the second difference of points [T, N, 2 or 3], per frame^2.

    In the unit of the points: pixels of `projected` joints, where a still hand has 0.
    """
    return _mean_difference(tracks, 2, valid)


def projected(
    points: np.ndarray, intrinsics: np.ndarray, world_to_camera: np.ndarray
) -> np.ndarray:
    """World points [T, N, 3] m -> pixels [T, N, 2]; cameras [T, 3, 3] and [T, 4, 4] of OpenCV."""
    local = np.einsum("tab,tnb->tna", world_to_camera[:, :3, :3], points)
    local = local + world_to_camera[:, None, :3, 3]
    pixels = np.einsum("tab,tnb->tna", intrinsics, local)
    return pixels[..., :2] / pixels[..., 2:]


def _mean_difference(tracks: np.ndarray, order: int, valid: np.ndarray | None) -> float:
    """Over runs of frames that are all valid; NaN where there is no such run."""
    if len(tracks) <= order:
        return float("nan")
    whole: np.ndarray | None = None
    if valid is not None:
        whole = np.all(np.lib.stride_tricks.sliding_window_view(valid, order + 1), axis=1)
    return _mean(np.linalg.norm(np.diff(tracks, n=order, axis=0), axis=-1).mean(axis=1), whole)


def _mean(values: np.ndarray, valid: np.ndarray | None) -> float:
    chosen = values if valid is None else values[valid]
    return float(chosen.mean()) if len(chosen) else float("nan")
