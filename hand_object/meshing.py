"""From a signed distance to triangles, on the host and never inside of a training step.

Marching cubes of scikit-image, coarse to fine: the distance is asked on a coarse grid, then on a
fine one only in those coarse cells that the surface can pass through. Distances are negative
inside; faces come out counterclockwise seen from outside, which is tested, since the convention of
marching cubes has changed between versions of scikit-image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
import scipy.sparse
import scipy.sparse.csgraph

from hand_object.hands.mesh import signed_volume
from training.errors import ConfigError, InputError

Distance = Callable[[np.ndarray], np.ndarray]
COARSE = 32  # cells along a side of the first grid
# The surface passes only through cells whose center is nearer to it than half their diagonal; a
# learned distance is wrong by some tens of percent, hence more than sqrt(3) / 2 = 0.87.
REACH = 1.8
CHUNK = 65_536  # points that are asked at once


class NoSurface(InputError):
    """The signed distances of a field have one sign everywhere."""


@dataclass(frozen=True)
class Mesh:
    """vertices [V, 3] float64; faces [F, 3] int32, outward; colors [V, 3] uint8 or None."""

    vertices: np.ndarray
    faces: np.ndarray
    colors: np.ndarray | None = None


def extract(
    distance: Distance,
    bounds: tuple[np.ndarray, np.ndarray],
    resolution: int = 128,
    name: str = "the surface",
) -> Mesh:
    """The largest piece of a surface, closed.

    Args:
      distance: points [N, 3] -> signed distances [N], negative inside, in the unit of the points.
      bounds: low and high corner [3]; the surface should lie between them.
      resolution: cells along the longest side of the box.
      name: of what is meshed, for messages.

    Raises:
      ConfigError: the resolution or the bounds make no grid.
      NoSurface: the distances have one sign.
      InputError: they are not finite.
    """
    low, high = (np.asarray(corner, np.float64) for corner in bounds)
    if resolution < 4 or not (high > low).all():
        raise ConfigError(
            f"meshing of {name} with {resolution} cells from {low.tolist()} to {high.tolist()}: "
            "give 4 cells or more and a box with a volume"
        )
    refine = max(1, round(resolution / COARSE))
    cell = (high - low).max() / max(resolution // refine, 2)
    coarse_shape = np.maximum(np.ceil((high - low) / cell - 1e-9).astype(int), 2)
    values = _refined(distance, low, cell, coarse_shape, refine, name)
    mesh = _marched(values, low, cell / refine, name)
    vertices, faces = largest_piece(*mesh)
    return Mesh(vertices, outward(vertices, faces))


def _refined(distance, low, cell, shape, refine: int, name: str) -> np.ndarray:
    """Values on the corners of the fine grid; far from the surface those of coarse cells."""
    axes = [low[k] + cell * (np.arange(shape[k]) + 0.5) for k in range(3)]
    centers = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    coarse = _asked(distance, centers.reshape(-1, 3), name).reshape(shape)
    # A cell whose sign differs from a neighbor's is near the surface whatever the distance says.
    near = (np.abs(coarse) < REACH * cell) | (
        scipy.ndimage.maximum_filter(coarse > 0, 3) != scipy.ndimage.minimum_filter(coarse > 0, 3)
    )
    fine_shape = shape * refine + 1
    values = _spread(coarse, refine)
    wanted = np.zeros(fine_shape, bool)
    for cell_index in np.argwhere(near):
        first = cell_index * refine
        wanted[tuple(slice(a, a + refine + 1) for a in first)] = True
    index = np.argwhere(wanted)
    if len(index):
        values[wanted] = _asked(distance, low + index * (cell / refine), name)
    return values


def _spread(coarse: np.ndarray, refine: int) -> np.ndarray:
    """Each corner of the fine grid takes the value of a coarse cell that it lies in."""
    values = coarse
    for axis in range(3):
        values = np.repeat(values, refine, axis=axis)
        last = np.take(values, [-1], axis=axis)
        values = np.concatenate([values, last], axis=axis)
    return values.astype(np.float64)


def _asked(distance: Distance, points: np.ndarray, name: str) -> np.ndarray:
    parts = [
        np.asarray(distance(points[first : first + CHUNK]), np.float64).reshape(-1)
        for first in range(0, len(points), CHUNK)
    ]
    values = np.concatenate(parts)
    broken = ~np.isfinite(values)
    if broken.any():
        raise InputError(
            f"the signed distance of {name} is not finite at {broken.sum()} of {len(values)} "
            "points; the training run diverged, mesh an earlier step"
        )
    return values


def _marched(values: np.ndarray, low: np.ndarray, spacing: float, name: str):
    """Vertices and faces of the level 0; a surface that meets the box is closed there."""
    # Imported here: only who meshes needs it, and it is slow to import.
    from skimage.measure import marching_cubes

    least, most = float(values.min()), float(values.max())
    if least >= 0 or most <= 0:
        side = "outside" if least >= 0 else "inside"
        raise NoSurface(
            f"{name} has no surface: its signed distances go from {least:.4g} to {most:.4g}, all "
            f"{side}; train longer, or look at the masks and poses that it was trained with"
        )
    closed = np.pad(values, 1, constant_values=max(most, spacing))
    vertices, faces, _, _ = marching_cubes(closed, 0.0, gradient_direction="descent")
    # The layer of the closing lies one cell out; what is there is moved onto the box.
    place = np.clip(np.asarray(vertices, np.float64) - 1, 0, np.array(values.shape) - 1)
    return low + place * spacing, np.asarray(faces, np.int32)


def largest_piece(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The connected part with the greatest area."""
    edges = faces[:, [0, 1, 1, 2]].reshape(-1, 2)
    graph = scipy.sparse.coo_matrix(
        (np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(len(vertices),) * 2
    )
    count, piece = scipy.sparse.csgraph.connected_components(graph, directed=False)
    if count > 1:
        a, b, c = (vertices[faces[:, k]] for k in range(3))
        area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
        kept = piece == np.argmax(np.bincount(piece[faces[:, 0]], area, minlength=count))
        faces = faces[kept[faces[:, 0]]]
    used = np.unique(faces)
    number = np.full(len(vertices), -1, np.int32)
    number[used] = np.arange(len(used), dtype=np.int32)
    return vertices[used], number[faces]


def outward(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The faces, turned around where they look inward."""
    return faces if signed_volume(vertices, faces) >= 0 else np.ascontiguousarray(faces[:, ::-1])


def is_watertight(mesh: Mesh) -> bool:
    """Whether each edge is shared by two faces that run along it in opposite directions."""
    edges = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
    count = len(mesh.vertices)
    there, back = edges @ [count, 1], edges @ [1, count]
    # An edge that runs twice the same way would be hidden by sets alone.
    return len(np.unique(there)) == len(there) and np.array_equal(np.sort(there), np.sort(back))
