"""Objects to hold: boxes, bottles, balls and dumbbells made here, or meshes of OBJ files.

All closed, faces outward, centered, in meters.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hand_object.hands.mesh import signed_volume
from training.errors import ConfigError, InputError

# Radius (m) along the axis (m), ends closed; turned around y.
PROFILES = {
    "bottle": (
        (0.0, -0.08),
        (0.032, -0.08),
        (0.034, -0.03),
        (0.033, 0.03),
        (0.014, 0.055),
        (0.013, 0.08),
        (0.0, 0.08),
    ),
    "ball": tuple((0.035 * np.sin(a), -0.035 * np.cos(a)) for a in np.linspace(0, np.pi, 17)),
    "dumbbell": (
        (0.0, -0.07),
        (0.035, -0.06),
        (0.035, -0.04),
        (0.014, -0.03),
        (0.014, 0.03),
        (0.035, 0.04),
        (0.035, 0.06),
        (0.0, 0.07),
    ),
}
SOLIDS = ("box", *PROFILES)


def solid(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [V, 3] and faces [F, 3] of a named object or of an OBJ file.

    Raises:
      ConfigError: there is no such object.
    """
    if name == "box":
        return _box(np.array([0.03, 0.07, 0.02]))
    if name in PROFILES:
        return _turned(np.array(PROFILES[name], float))
    if name.endswith(".obj"):
        vertices, faces = read_obj(Path(name))
        return vertices - (vertices.min(axis=0) + vertices.max(axis=0)) / 2, faces
    raise ConfigError(
        f"object {name!r} is unknown; name one of {', '.join(SOLIDS)} or an .obj file"
    )


def read_obj(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices, welded where they coincide, and triangles of an OBJ file.

    Raises:
      InputError: the file is missing or holds no triangles.
    """
    if not path.is_file():
        raise InputError(f"there is no object {path}; check the path")
    points, faces = [], []
    for line in path.read_text(errors="replace").splitlines():
        words = line.split()
        if words[:1] == ["v"]:
            points.append([float(word) for word in words[1:4]])
        elif words[:1] == ["f"]:
            corners = [int(word.split("/")[0]) for word in words[1:]]
            corners = [c - 1 if c > 0 else len(points) + c for c in corners]
            faces += [[corners[0], *corners[k : k + 2]] for k in range(1, len(corners) - 1)]
    if not faces:
        raise InputError(f"{path} holds no triangles; export the object as a mesh")
    vertices, row = np.unique(np.array(points), axis=0, return_inverse=True)
    return vertices, row.reshape(-1)[np.array(faces)]


def _box(half: np.ndarray, cells: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """A box with cells x cells squares on each side, so that shading has small faces."""
    t = np.linspace(-1, 1, cells + 1)
    points, faces = [], []
    for axis in range(3):
        for sign in (-1, 1):
            u, v = np.meshgrid(t, t, indexing="ij")
            side = np.full((*u.shape, 3), float(sign))
            side[..., (axis + 1) % 3], side[..., (axis + 2) % 3] = u, v
            number = np.arange(u.size).reshape(u.shape) + len(points) * u.size
            a, b = number[:-1, :-1].ravel(), number[1:, :-1].ravel()
            c, d = number[1:, 1:].ravel(), number[:-1, 1:].ravel()
            order = (a, b, c, d) if sign > 0 else (a, d, c, b)
            for k in (1, 2):
                faces.append(np.stack([order[0], order[k], order[k + 1]], axis=-1))
            points.append(side.reshape(-1, 3) * half)
    vertices, row = np.unique(np.concatenate(points), axis=0, return_inverse=True)
    return vertices, row.reshape(-1)[np.concatenate(faces)]


def _turned(profile: np.ndarray, around: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """A profile (radius, height) turned around y; the first and last radius are 0."""
    angle = np.linspace(0, 2 * np.pi, around, endpoint=False)
    ring = np.stack([np.cos(angle), np.zeros(around), np.sin(angle)], axis=-1)
    rings = profile[1:-1, 0, None, None] * ring + profile[1:-1, 1, None, None] * [0, 1, 0]
    ends = np.array([[0, profile[0, 1], 0], [0, profile[-1, 1], 0]])
    vertices = np.concatenate([rings.reshape(-1, 3), ends])
    k, following = np.arange(around), (np.arange(around) + 1) % around
    faces = []
    for row in range(len(rings) - 1):
        low, high = row * around, (row + 1) * around
        faces += [
            [low + k, high + k, high + following],
            [low + k, high + following, low + following],
        ]
    top, low_end = (len(rings) - 1) * around, len(vertices) - 2
    faces += [[k, following, np.full(around, low_end)]]
    faces += [[top + following, top + k, np.full(around, low_end + 1)]]
    found = np.concatenate([np.stack(f, axis=-1) for f in faces])
    return vertices, found if signed_volume(vertices, found) > 0 else found[:, ::-1]
