"""A z-buffer for triangles on the host: depth, which mesh, and shading of small pictures.

Cameras are OpenCV's, integer pixel coordinates are centers of pixels. Depth is z of the camera, not
the distance along the ray. A triangle with a corner behind the near plane is left out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NEAR = 0.01  # meters


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
    height, width = size
    drawn = Drawn(np.full(size, np.inf), np.full(size, -1, np.int32), np.full(size, -1, np.int32))
    for number, (vertices, faces) in enumerate(meshes):
        local = vertices @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
        pixels = local @ intrinsics.T
        z = local[:, 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            places = pixels[:, :2] / pixels[:, 2:]
        for face in np.flatnonzero((z[faces] > NEAR).all(axis=1)).tolist():
            corners = faces[face]
            _fill(drawn, places[corners], z[corners], number, face, width, height)
    return drawn


def _fill(drawn: Drawn, p: np.ndarray, z: np.ndarray, mesh: int, face: int, width, height) -> None:
    """One triangle: corners p [3, 2] in pixels, depths z [3]."""
    x0, y0 = np.maximum(np.ceil(p.min(axis=0)), 0).astype(int)
    x1, y1 = np.minimum(np.floor(p.max(axis=0)), [width - 1, height - 1]).astype(int)
    edge, other = p[1] - p[0], p[2] - p[0]
    area = edge[0] * other[1] - edge[1] * other[0]
    if x1 < x0 or y1 < y0 or area == 0:
        return
    x, y = np.arange(x0, x1 + 1)[None] - p[0, 0], np.arange(y0, y1 + 1)[:, None] - p[0, 1]
    b = (x * other[1] - y * other[0]) / area
    c = (edge[0] * y - edge[1] * x) / area
    a = 1 - b - c
    # The inverse of depth, not depth, is linear over the picture.
    inverse = a / z[0] + b / z[1] + c / z[2]
    here = (slice(y0, y1 + 1), slice(x0, x1 + 1))
    with np.errstate(divide="ignore"):
        depth = 1 / inverse
    seen = (a >= 0) & (b >= 0) & (c >= 0) & (depth < drawn.depth[here])
    drawn.depth[here][seen] = depth[seen]
    drawn.mesh[here][seen] = mesh
    drawn.face[here][seen] = face
