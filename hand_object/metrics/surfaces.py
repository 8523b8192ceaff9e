"""Distances between surfaces, as points: Chamfer, F-score, and both after registration.

Protocols, which a table names:

* `surface`: points drawn evenly by area with a fixed seed (`sample_surface`); the default.
* `vertices`: vertices of the meshes, as HOLD's evaluation has it.

Chamfer is the sum of the mean squared distances in both directions, cm^2. The F-score is the
harmonic mean of both shares of points that have the other surface within a threshold, %.
Registration (`icp`) is by similarity with scale, best of several starts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

CHAMFER_UNIT = 1e4  # m^2 -> cm^2


@dataclass(frozen=True)
class SurfaceScore:
    """chamfer in cm^2; f5 and f10 in %, at 5 and 10 mm."""

    chamfer: float
    f5: float
    f10: float


def sample_surface(
    vertices: np.ndarray, faces: np.ndarray, count: int, seed: int = 0
) -> np.ndarray:
    """[count, 3] points, evenly by area; the same for the same seed."""
    corners = np.asarray(vertices, np.float64)[faces]
    return sampled_faces(corners, count, np.random.default_rng(seed))[0]


def sampled_faces(
    corners: np.ndarray, count: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Points [count, 3], evenly by area of triangles [F, 3, 3], and the triangle of each."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normal, axis=1)
    chosen = random.choice(len(corners), size=count, p=area / area.sum())
    u, v = random.random((2, count, 1))
    # The root makes the draw even over a triangle.
    u = np.sqrt(u)
    a, b, c = (corners[chosen, k] for k in range(3))
    return (1 - u) * a + u * (1 - v) * b + u * v * c, chosen


def score(found: np.ndarray, wanted: np.ndarray) -> SurfaceScore:
    """Of points [N, 3] and [M, 3] in meters, as they stand."""
    to_wanted, to_found = KDTree(wanted).query(found)[0], KDTree(found).query(wanted)[0]
    chamfer = (np.square(to_wanted).mean() + np.square(to_found).mean()) * CHAMFER_UNIT
    return SurfaceScore(
        float(chamfer), _f(to_wanted, to_found, 0.005), _f(to_wanted, to_found, 0.010)
    )


def score_registered(found: np.ndarray, wanted: np.ndarray, starts: int = 24) -> SurfaceScore:
    """`score` after the similarity that fits best: HOLD's `cd_icp`, `f5_icp`, `f10_icp`.

    Starts are the identity and rotations of the cube about the centers, each also scaled to the
    same spread; the least Chamfer distance wins.
    """
    some = np.random.default_rng(0).permutation(len(found))[:1000]
    few = np.random.default_rng(1).permutation(len(wanted))[:1000]
    fits = [np.eye(4)]
    for start in [np.eye(4), *_starts(found, wanted)[:starts]]:
        fits.append(icp(found[some], wanted[few], start))
    scored = [(score(_moved(fit, found), wanted), place) for place, fit in enumerate(fits)]
    best, place = min(scored, key=lambda each: each[0].chamfer)
    # Subsets of points differ where the surfaces do not: all of them settle the last bit.
    last = score(_moved(icp(found, wanted, fits[place]), found), wanted)
    best = min(best, last, key=lambda each: each.chamfer)
    return best


def icp(found: np.ndarray, wanted: np.ndarray, start: np.ndarray, rounds: int = 40) -> np.ndarray:
    """Similarity [4, 4] that brings points onto others: nearest pairs, fitted, again."""
    tree, fit = KDTree(wanted), start
    for _ in range(rounds):
        nearest = tree.query(_moved(fit, found))[1]
        after = similarity(found, wanted[nearest])
        if np.abs(after - fit).max() < 1e-7:
            break
        fit = after
    return fit


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[4, 4] least squares of scale, rotation and translation (Umeyama 1991)."""
    mean_s, mean_t = source.mean(axis=0), target.mean(axis=0)
    s, t = source - mean_s, target - mean_t
    u, values, vt = np.linalg.svd(t.T @ s)
    signs = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ np.diag(signs) @ vt
    scale = (values * signs).sum() / np.square(s).sum()
    fit = np.eye(4)
    fit[:3, :3] = scale * rotation
    fit[:3, 3] = mean_t - fit[:3, :3] @ mean_s
    return fit


def relative_to_hand(points: np.ndarray, wrists: np.ndarray) -> np.ndarray:
    """Object points [T, N, 3] relative to the wrist [T, 3]: what `hand_chamfer` compares."""
    return points - wrists[:, None]


def hand_chamfer(
    found: np.ndarray, found_wrist: np.ndarray, wanted: np.ndarray, wanted_wrist: np.ndarray
) -> float:
    """CD_h, cm^2: mean over frames of the object's Chamfer distance relative to the wrist.

    Args:
      found, wanted: [T, N, 3] and [T, M, 3] object points in the world, m.
      found_wrist, wanted_wrist: [T, 3].
    """
    pairs = zip(relative_to_hand(found, found_wrist), relative_to_hand(wanted, wanted_wrist))
    return float(np.mean([score(one, other).chamfer for one, other in pairs]))


def _f(to_wanted: np.ndarray, to_found: np.ndarray, threshold: float) -> float:
    precision, recall = (to_wanted < threshold).mean(), (to_found < threshold).mean()
    total = precision + recall
    return float(200 * precision * recall / total) if total else 0.0


def _moved(fit: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ fit[:3, :3].T + fit[:3, 3]


def _starts(found: np.ndarray, wanted: np.ndarray) -> list[np.ndarray]:
    """The 24 rotations of a cube about the means, with the spread matched."""
    scale = np.sqrt(wanted.var(axis=0).sum() / max(found.var(axis=0).sum(), 1e-18))
    starts = []
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (2, 1, 0), (1, 0, 2)):
        for signs in np.ndindex(2, 2, 2):
            rotation = np.eye(3)[list(order)] * (1 - 2 * np.array(signs))
            if np.linalg.det(rotation) > 0:
                fit = np.eye(4)
                fit[:3, :3] = scale * rotation
                fit[:3, 3] = wanted.mean(axis=0) - fit[:3, :3] @ found.mean(axis=0)
                starts.append(fit)
    return starts
