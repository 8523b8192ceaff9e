"""Triangle meshes on the host: volume, boundary, closing of holes, normals.

Faces are outward by the right-hand rule: seen from outside, their corners run counterclockwise.
"""

from __future__ import annotations

import numpy as np


def signed_volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Volume [cubed unit] of a closed mesh; negative where its faces look inward."""
    a, b, c = (np.asarray(vertices, np.float64)[faces[:, k]] for k in range(3))
    return float(np.einsum("fa,fa->", a, np.cross(b, c)) / 6)


def boundary_loops(faces: np.ndarray) -> list[list[int]]:
    """Vertices around each hole, in the order in which a closing fan must run."""
    edges = {(int(f[k]), int(f[(k + 1) % 3])) for f in faces for k in range(3)}
    # A closing face runs along an open edge in the other direction.
    following = {b: a for a, b in edges if (b, a) not in edges}
    loops = []
    while following:
        start, then = following.popitem()
        loop = [start]
        while then != start:
            loop.append(then)
            then = following.pop(then)
        loops.append(loop)
    return loops


def close_holes(
    vertices: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Closes each hole by a fan to its center.

    Returns:
      Vertices [V + holes, 3], faces, and shares [holes, V] of the old vertices in the new ones.
    """
    loops = boundary_loops(faces)
    shares = np.zeros((len(loops), len(vertices)))
    fans = [np.asarray(faces)]
    for hole, loop in enumerate(loops):
        shares[hole, loop] = 1 / len(loop)
        center = len(vertices) + hole
        fans.append(np.array([[a, b, center] for a, b in zip(loop, [*loop[1:], loop[0]])]))
    return np.concatenate([vertices, shares @ vertices]), np.concatenate(fans), shares


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """[V, 3] unit, outward; zero of a vertex that no face has."""
    corners = vertices[faces]
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros_like(vertices, dtype=np.float64)
    for corner in range(3):
        np.add.at(total, faces[:, corner], area)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return total / np.where(length > 0, length, 1)
