"""Signed distances of many points from a mesh, in microseconds a point.

Distance: the exact one to those triangles that own the nearest points of a dense sample. The right
triangle may be missed where others are nearly as near, which makes it too long by at most the
farthest that a point of the surface is from a sample. Sign: how
often lines from the point to infinity leave the surface more than they enter it, in three
directions of which the majority counts, so that a small hole does little harm. Letters: N points,
F triangles, K candidates.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from hand_object.metrics.surfaces import sampled_faces

CANDIDATES = 6
CELLS = 96  # along a side of the table that finds the triangles on a line
# Meshes have edges along axes, where a line through a vertex would meet several triangles.
_TILT = Rotation.from_rotvec([0.31, -0.47, 0.23]).as_matrix()


class ClosedSurface:
    """Asked with points [N, 3], gives distances [N], negative inside, in the unit of the mesh."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, samples: int = 20_000):
        corners = np.asarray(vertices, np.float64)[faces]
        points, owner = sampled_faces(corners, samples, np.random.default_rng(0))
        # Small triangles may get no sample; their centers stand for them.
        points = np.concatenate([points, corners.mean(axis=1)])
        self._owner = np.concatenate([owner, np.arange(len(corners))])
        self._corners, self._tree = corners, KDTree(points)
        self._low, self._high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
        tilted = corners @ _TILT.T
        self._lines = [_Lines(np.roll(tilted, shift, axis=-1)) for shift in range(3)]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        points = np.asarray(points, np.float64)
        near = self._owner[self._tree.query(points, k=CANDIDATES)[1]]
        distance = triangle_distance(points[:, None], self._corners[near]).min(axis=1)
        return np.where(self.contains(points), -distance, distance)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """[N] bool."""
        inside = np.zeros(len(points), bool)
        boxed = np.flatnonzero(((points > self._low) & (points < self._high)).all(axis=1))
        tilted = points[boxed] @ _TILT.T
        votes = [lines.leaves(np.roll(tilted, s, axis=-1)) for s, lines in enumerate(self._lines)]
        inside[boxed] = np.sum(votes, axis=0) >= 2
        return inside


class _Lines:
    """Lines along the last axis: a table from places of the first two to triangles there."""

    def __init__(self, corners: np.ndarray):
        self._corners = corners
        low, high = corners[..., :2].min(axis=1), corners[..., :2].max(axis=1)
        self._low = low.min(axis=0)
        self._cell = (high.max(axis=0) - self._low).max() / CELLS
        first = ((low - self._low) / self._cell).astype(int)
        count = ((high - self._low) / self._cell).astype(int) - first + 1
        triangle, place = _expanded(count[:, 0] * count[:, 1])
        row, column = np.divmod(place, count[triangle, 1])
        cell = self._number(first[triangle] + np.stack([row, column], axis=-1))
        order = np.argsort(cell, kind="stable")
        self._triangle = triangle[order]
        self._start = np.searchsorted(cell[order], np.arange((CELLS + 2) ** 2 + 1))

    def leaves(self, points: np.ndarray) -> np.ndarray:
        """[N] whether a line from the point upward leaves the surface once more than it enters."""
        cell = ((points[:, :2] - self._low) / self._cell).astype(int)
        number = self._number(np.clip(cell, 0, CELLS))
        first, count = self._start[number], self._start[number + 1] - self._start[number]
        point, place = _expanded(count)
        a, b, c = np.moveaxis(self._corners[self._triangle[first[point] + place]], 1, 0)
        p = points[point]
        area = _turn(a, b, c)
        shares = np.stack([_turn(b, c, p), _turn(c, a, p), _turn(a, b, p)], axis=-1)
        within = np.where(area[:, None] > 0, shares >= 0, shares < 0).all(axis=1) & (area != 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            height = (
                shares[:, 0] * a[:, 2] + shares[:, 1] * b[:, 2] + shares[:, 2] * c[:, 2]
            ) / area
        above = within & (height > p[:, 2])
        return np.bincount(point[above], np.sign(area[above]), minlength=len(points)) > 0.5

    @staticmethod
    def _number(cell: np.ndarray) -> np.ndarray:
        return cell[:, 0] * (CELLS + 2) + cell[:, 1]


def _expanded(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For counts [n]: the number of each entry and its place, entry by entry."""
    entry = np.repeat(np.arange(len(counts)), counts)
    return entry, np.arange(len(entry)) - np.repeat(np.cumsum(counts) - counts, counts)


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Twice the area of a triangle seen along the last axis; positive counterclockwise."""
    return (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])


def triangle_distance(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Distances [...] of points [..., 3] from triangles [..., 3, 3]."""
    a, b, c, points = np.broadcast_arrays(*(corners[..., k, :] for k in range(3)), points)
    normal = np.cross(b - a, c - a)
    square = np.maximum(_dot(normal, normal), np.finfo(np.float64).tiny)
    within = np.ones(a.shape[:-1], bool)
    sides = []
    for start, end in ((a, b), (b, c), (c, a)):
        edge, offset = end - start, points - start
        length = np.maximum(_dot(edge, edge), np.finfo(np.float64).tiny)
        share = np.clip(_dot(offset, edge) / length, 0, 1)
        sides.append(np.linalg.norm(offset - share[..., None] * edge, axis=-1))
        within &= _dot(np.cross(edge, offset), normal) >= 0
    plane = np.abs(_dot(points - a, normal)) / np.sqrt(square)
    return np.minimum(np.min(sides, axis=0), np.where(within, plane, np.inf))


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("...i,...i->...", a, b)
