"""World normalization: one similarity that puts every scene at the same place, pose and size.

After it the mean camera up is +z and then the principal axes of the points, largest variance
first; the point that the cameras look at is near the origin; the median camera distance is 1.
The 4x4 is kept with the scene so that exports can undo it.
Source: the normalization of gsplat's COLMAP example (itself from nerf-factory), specification only.

Vocabulary: a `similarity` [4,4] float64 has the upper-left block scale * rotation.
"""

from __future__ import annotations

import numpy as np

_EPSILON = 1e-9  # lengths below it have no direction that could be trusted
# Extents of the cameras: farther away, the origin has nothing to do with the scene (UTM, ECEF).
FAR_ORIGIN = 100.0


def camera_centers(world_to_camera: np.ndarray) -> np.ndarray:
    """Centers [view,3] of `world_to_camera` [view,4,4], in world units: -R^T t."""
    rotation, translation = world_to_camera[:, :3, :3], world_to_camera[:, :3, 3]
    return -np.einsum("vji,vj->vi", rotation, translation)


def rotation_between(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The smallest rotation [3,3] that takes unit vector `source` to unit vector `target`."""
    cosine = float(source @ target)
    if cosine < -1 + _EPSILON:
        # Opposite: any axis across will do for the half turn, and the formula below divides by 0.
        other = np.eye(3)[np.argmin(np.abs(source))]
        axis = np.cross(source, other)
        axis /= np.linalg.norm(axis)
        return 2 * np.outer(axis, axis) - np.eye(3)
    x, y, z = np.cross(source, target)
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + skew + skew @ skew / (1 + cosine)


def similarity_from_cameras(world_to_camera: np.ndarray) -> np.ndarray:
    """Up to +z, the focus point to the origin, the median camera distance to 1.

    The focus is the median, over cameras, of the point of each optical axis nearest to the origin.
    It is the point looked at only where the world's origin lies near the scene, as COLMAP's does.
    In georeferenced worlds, whose origin is far away, the middle of the cameras takes the origin's
    place. Where `normalize_world` then moves the origin to the points' median, the focus decides
    nothing but the scale.
    """
    centers = camera_centers(world_to_camera)
    middle = np.median(centers, axis=0)
    spread = np.linalg.norm(centers - middle, axis=1).max()
    if np.linalg.norm(middle) > FAR_ORIGIN * spread > 0:
        moved = np.array(world_to_camera, np.float64)
        moved[:, :3, 3] += moved[:, :3, :3] @ middle
        shift = np.eye(4)
        shift[:3, 3] = -middle
        return _similarity_about_origin(moved) @ shift
    return _similarity_about_origin(world_to_camera)


def _similarity_about_origin(world_to_camera: np.ndarray) -> np.ndarray:
    rotation = world_to_camera[:, :3, :3]
    # The rows of a world-to-camera rotation are the camera's axes in the world; y points down.
    up = -rotation[:, 1].mean(axis=0)
    length = np.linalg.norm(up)
    align = rotation_between(up / length, np.array([0.0, 0, 1])) if length > _EPSILON else np.eye(3)
    centers = camera_centers(world_to_camera) @ align.T
    forward = rotation[:, 2] @ align.T
    nearest = centers - np.sum(forward * centers, axis=1, keepdims=True) * forward
    shift = -np.median(nearest, axis=0)
    distance = np.median(np.linalg.norm(centers + shift, axis=1))
    scale = 1 / distance if distance > _EPSILON else 1.0
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = scale * align, scale * shift
    return result


def principal_axes(points: np.ndarray) -> np.ndarray:
    """Rotation and shift [4,4]: median to the origin, axes by falling variance, determinant +1.

    Signs of eigenvectors are arbitrary; the entry of largest magnitude of each is made positive so
    that the result does not depend on the linear algebra library.
    """
    center = np.median(points, axis=0)
    _, vectors = np.linalg.eigh(np.cov((points - center).T))
    axes = vectors[:, ::-1].T
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    axes = axes * np.where(largest < 0, -1, 1)
    # A mirrored world would turn every harmonic and every rotation into nonsense.
    if np.linalg.det(axes) < 0:
        axes[0] *= -1
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = axes, -axes @ center
    return result


def normalize_world(world_to_camera: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The similarity [4,4] float64 from world to normalized coordinates.

    `world_to_camera` [view,4,4]; `points` [N,3]. Fewer than 4 points: the step on principal axes is
    left out.
    """
    similarity = similarity_from_cameras(world_to_camera)
    if len(points) < 4:
        return similarity
    similarity = principal_axes(transform_points(similarity, points)) @ similarity
    height = transform_points(similarity, points)[:, 2]
    # Most points lie near the ground and the tail is above it, so that the mean exceeds the median.
    # Where it does not, the world is taken for upside down (gsplat's rule).
    if np.median(height) > np.mean(height):
        similarity = np.diag([1.0, -1.0, -1.0, 1.0]) @ similarity
    return similarity


def similarity_scale(similarity: np.ndarray) -> float:
    """The factor by which `similarity` stretches lengths."""
    return float(np.cbrt(np.linalg.det(similarity[:3, :3])))


def transform_points(similarity: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`points` [N,3] moved by `similarity`."""
    return points @ similarity[:3, :3].T + similarity[:3, 3]


def transform_cameras(similarity: np.ndarray, world_to_camera: np.ndarray) -> np.ndarray:
    """`world_to_camera` [view,4,4] in the transformed world: still rigid, lengths scaled."""
    scale = similarity_scale(similarity)
    rotation = similarity[:3, :3] / scale
    centers = transform_points(similarity, camera_centers(world_to_camera))
    result = np.array(world_to_camera, np.float64)
    # Centers are points and scale with the world; rotations stay rotations, so that depths are in
    # units of the new world.
    result[:, :3, :3] = world_to_camera[:, :3, :3] @ rotation.T
    result[:, :3, 3] = -np.einsum("vij,vj->vi", result[:, :3, :3], centers)
    return result


def scene_scale(world_to_camera: np.ndarray) -> float:
    """1.1 times the largest distance of a camera center from their mean, in world units.

    The unit of the learning rate and of the densification thresholds (INRIA's camera extent). One
    camera, or cameras at one place, would give 0: then 1 is returned.
    """
    centers = camera_centers(world_to_camera)
    largest = np.linalg.norm(centers - centers.mean(axis=0), axis=1).max()
    return float(1.1 * largest) if largest > _EPSILON else 1.0
