"""Where Gaussians start: sizes from neighbor distances, or random points.

Source: INRIA's 3D Gaussian Splatting (`distCUDA2` and the NeRF-synthetic loader), specification
only.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree

SMALLEST_SQUARE_DISTANCE = 1e-7  # points at one place would be Gaussians without extent
BLENDER_HALF_SIZE = 1.3  # of the cube around the origin that holds the objects of NeRF-synthetic


def neighbor_distances(points: np.ndarray, neighbors: int = 3) -> np.ndarray:
    """Root mean square distance [N] float32 from each of `points` [N,3] to its nearest ones.

    The logarithm of this (times `init_scale`) is the starting log-scale. The square is at least
    1e-7 (duplicates); with fewer points than neighbors those that exist count; one point gives 1.
    """
    count = min(neighbors, len(points) - 1)
    if count < 1:
        return np.ones(len(points), np.float32)
    points = np.asarray(points, np.float64)
    # One more: the nearest point of each is itself.
    distances, _ = KDTree(points).query(points, k=count + 1)
    square = np.mean(distances[:, 1:] ** 2, axis=1)
    return np.sqrt(np.maximum(square, SMALLEST_SQUARE_DISTANCE)).astype(np.float32)


def random_points(
    count: int, scene_scale: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Points [N,3] float32 in the cube of half-size 3 * scene_scale; colors [N,3] uint8."""
    half = 3.0 * scene_scale
    points = generator.uniform(-half, half, (count, 3)).astype(np.float32)
    return points, generator.integers(0, 256, (count, 3), dtype=np.uint8)


def random_blender_points(
    count: int, normalization: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`count` points in the cube [-1.3,1.3]^3 of the Blender world, moved by `normalization`."""
    points = generator.uniform(-BLENDER_HALF_SIZE, BLENDER_HALF_SIZE, (count, 3))
    moved = points @ normalization[:3, :3].T + normalization[:3, 3]
    return moved.astype(np.float32), generator.integers(0, 256, (count, 3), dtype=np.uint8)
