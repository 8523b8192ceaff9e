"""Exact distances of procedural objects of random size: what the mini prior learns to hold.

Signed distances in meters, negative inside; an object is centered and its axis is y. The names of
families are what the prior is conditioned on. Letters: N points.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.ndimage import map_coordinates

from hand_object.data.solids import PROFILES, solid
from hand_object.metrics.closed_surface import ClosedSurface
from training.errors import InputError

Distance = Callable[[np.ndarray], np.ndarray]  # [N, 3] meters -> [N] meters


def box(half: np.ndarray, rounding: float = 0.002) -> Distance:
    """A box of half sides [3] with rounded edges."""

    def distance(points: np.ndarray) -> np.ndarray:
        over = np.abs(points) - (half - rounding)
        outside = np.linalg.norm(np.maximum(over, 0), axis=-1)
        return outside + np.minimum(over.max(axis=-1), 0) - rounding

    return distance


def turned(profile: np.ndarray) -> Distance:
    """A profile [P, 2] of radius and height, turned around y; both ends lie on the axis."""
    first, last = profile[:-1], profile[1:]
    edges = last - first
    squares = np.maximum(np.sum(edges**2, axis=-1), 1e-12)

    def distance(points: np.ndarray) -> np.ndarray:
        flat = np.stack([np.hypot(points[:, 0], points[:, 2]), points[:, 1]], axis=-1)
        offset = flat[:, None] - first[None]
        along = np.clip(np.sum(offset * edges, axis=-1) / squares, 0, 1)
        gaps = np.linalg.norm(offset - along[..., None] * edges, axis=-1).min(axis=-1)
        # Inside where a ray outward crosses the profile an odd number of times.
        low, high = first[:, 1], last[:, 1]
        spans = (low[None] <= flat[:, 1:]) != (high[None] <= flat[:, 1:])
        height = np.where(np.abs(edges[:, 1]) < 1e-12, 1e-12, edges[:, 1])
        radius = first[:, 0] + offset[..., 1] / height * edges[:, 0]
        inside = np.sum(spans & (radius > flat[:, :1]), axis=-1) % 2 == 1
        return np.where(inside, -gaps, gaps)

    return distance


def ring(center: np.ndarray, radius: float, thickness: float) -> Distance:
    """A torus in the plane of x and y."""

    def distance(points: np.ndarray) -> np.ndarray:
        offset = points - center
        flat = np.hypot(offset[:, 0], offset[:, 1]) - radius
        return np.hypot(flat, offset[:, 2]) - thickness

    return distance


def _cylinder(radius: float, half: float) -> Distance:
    return turned(np.array([[0, -half], [radius, -half], [radius, half], [0, half]]))


def random_box(random: np.random.Generator) -> Distance:
    return box(random.uniform([0.015, 0.04, 0.015], [0.035, 0.1, 0.05]))


def random_cylinder(random: np.random.Generator) -> Distance:
    return _cylinder(random.uniform(0.018, 0.042), random.uniform(0.04, 0.1))


def random_ball(random: np.random.Generator) -> Distance:
    radius = random.uniform(0.025, 0.045)
    return lambda points: np.linalg.norm(points, axis=-1) - radius


def random_bottle(random: np.random.Generator) -> Distance:
    """The bottle of the made-up sequences, wider or longer."""
    return turned(np.array(PROFILES["bottle"]) * random.uniform([0.75, 0.75], [1.25, 1.3]))


def random_dumbbell(random: np.random.Generator) -> Distance:
    return turned(np.array(PROFILES["dumbbell"]) * random.uniform([0.75, 0.75], [1.2, 1.3]))


def random_mug(random: np.random.Generator) -> Distance:
    """A filled cylinder with a handle."""
    radius, half = random.uniform(0.03, 0.042), random.uniform(0.04, 0.055)
    body = _cylinder(radius, half)
    handle = ring(np.array([radius, 0, 0]), 0.6 * half, random.uniform(0.004, 0.007))
    return lambda points: np.minimum(body(points), handle(points))


FAMILIES: dict[str, Callable[[np.random.Generator], Distance]] = {
    "box": random_box,
    "cylinder": random_cylinder,
    "ball": random_ball,
    "bottle": random_bottle,
    "dumbbell": random_dumbbell,
    "mug": random_mug,
}


class Sampled:
    """A closed mesh, by its distances on a grid around it; straight between samples.

    Beyond the grid the way to it is added.
    """

    SIDE, MARGIN = 32, 0.03  # samples along a side; meters around the mesh

    def __init__(self, vertices: np.ndarray, faces: np.ndarray):
        low, high = vertices.min(axis=0) - self.MARGIN, vertices.max(axis=0) + self.MARGIN
        self._low, self._high = low, high
        lines = [np.linspace(a, b, self.SIDE) for a, b in zip(low, high)]
        points = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 3)
        self._values = ClosedSurface(vertices, faces, 5000)(points).reshape((self.SIDE,) * 3)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        inside = np.clip(points, self._low, self._high)
        places = (inside - self._low) / (self._high - self._low) * (self.SIDE - 1)
        near = map_coordinates(self._values, places.T, order=1, mode="nearest")
        return near + np.linalg.norm(points - inside, axis=-1)


def read_meshes(folder: Path) -> dict[str, Distance]:
    """Every OBJ file of a folder by its name without a leading number: `025_mug.obj` is `mug`.

    Raises:
      InputError: there is none, or one cannot be read.
    """
    paths = sorted(folder.glob("*.obj"))
    if not paths:
        raise InputError(f"{folder} holds no .obj file; name a folder of meshes or none")
    found: dict[str, Distance] = {}
    for path in paths:
        vertices, faces = solid(str(path))
        # The longest side becomes y, as it is of procedural objects.
        longest = int(np.argmax(np.ptp(vertices, axis=0)))
        name = path.stem.lstrip("0123456789_").replace("_", " ")
        found[name] = Sampled(np.roll(vertices, 1 - longest, axis=1), faces)
    return found
