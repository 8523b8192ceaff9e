"""A z-buffer for triangles on the host: depth, which mesh, and shading of small pictures.

Cameras are OpenCV's, integer pixel coordinates are centers of pixels. Depth is z of the camera, not
the distance along the ray. A triangle with a corner behind the near plane is left out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NEAR = 0.01  # meters
FRAGMENTS = 1_000_000  # pairs of a triangle and a pixel that are looked at at once


class Drawn(NamedTuple):
    """[H, W] depth in meters (inf where nothing is), mesh number and face number (-1: none)."""

    depth: np.ndarray
    mesh: np.ndarray
    face: np.ndarray


def draw(
    meshes: list[tuple[np.ndarray, np.ndarray]],
    intrinsics: np.ndarray,
    world_to_camera: np.ndarray,
    size: tuple[int, int],
) -> Drawn:
    """What a camera sees of meshes (vertices [V, 3] in the world, faces [F, 3])."""
    drawn = Drawn(np.full(size, np.inf), np.full(size, -1, np.int32), np.full(size, -1, np.int32))
    for number, (vertices, faces) in enumerate(meshes):
        local = vertices @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
        pixels = local @ intrinsics.T
        kept = np.flatnonzero((local[:, 2][faces] > NEAR).all(axis=1))
        corners = faces[kept]
        with np.errstate(divide="ignore", invalid="ignore"):
            places = (pixels[:, :2] / pixels[:, 2:])[corners]
        _draw_mesh(drawn, places, local[:, 2][corners], kept, number)
    return drawn


def _draw_mesh(drawn: Drawn, p: np.ndarray, z: np.ndarray, faces: np.ndarray, mesh: int) -> None:
    """Triangles with corners p [F, 3, 2] in pixels and depths z [F, 3], those of like size at once.

    A triangle is tried on each pixel of a square that its box fits into.
    """
    height, width = drawn.depth.shape
    first = np.maximum(np.ceil(p.min(axis=1)), 0).astype(int)
    last = np.minimum(np.floor(p.max(axis=1)), [width - 1, height - 1]).astype(int)
    longest = (last - first + 1).max(axis=1)
    longest[(last < first).any(axis=1)] = 0
    side = 1
    while side < 2 * max(height, width):
        rows = np.flatnonzero((longest > side // 2) & (longest <= side))
        per_chunk = max(1, FRAGMENTS // side**2)
        for start in range(0, len(rows), per_chunk):
            some = rows[start : start + per_chunk]
            _fill(drawn, p[some], z[some], faces[some], mesh, first[some], last[some], side)
        side *= 2


def _fill(drawn, p, z, faces, mesh: int, first, last, side: int) -> None:
    steps = np.arange(side)
    x = first[:, 0, None, None] + steps[None, None]
    y = first[:, 1, None, None] + steps[None, :, None]
    inside = (x <= last[:, 0, None, None]) & (y <= last[:, 1, None, None])
    edge, other = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    area = edge[:, 0] * other[:, 1] - edge[:, 1] * other[:, 0]
    dx, dy = x - p[:, 0, 0, None, None], y - p[:, 0, 1, None, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        b = (dx * _at(other, 1) - dy * _at(other, 0)) / area[:, None, None]
        c = (_at(edge, 0) * dy - _at(edge, 1) * dx) / area[:, None, None]
        a = 1 - b - c
        # The inverse of depth, not depth, is linear over the picture.
        depth = 1 / (a / _at(z, 0) + b / _at(z, 1) + c / _at(z, 2))
    inside &= (a >= 0) & (b >= 0) & (c >= 0)
    triangle, row, column = np.nonzero(inside)
    depth = depth[triangle, row, column]
    row, column = row + first[triangle, 1], column + first[triangle, 0]
    nearer = depth < drawn.depth[row, column]
    triangle, row, column, depth = (v[nearer] for v in (triangle, row, column, depth))
    # Of several fragments of a pixel the last one written stays: the nearest one, or the first
    # triangle among equals.
    order = np.lexsort((-triangle, -depth))
    row, column = row[order], column[order]
    drawn.depth[row, column] = depth[order]
    drawn.mesh[row, column] = mesh
    drawn.face[row, column] = faces[triangle[order]]


def _at(values: np.ndarray, column: int) -> np.ndarray:
    return values[:, column, None, None]
