"""Hands and object move smoothly: differences over time, taken of the pose tables of all frames.

Nothing is remembered between updates: what is compared are frames that follow each other in the
video, in whatever order they are drawn. Differences are per frame of the video, so that a gap (a
frame without a pose) counts with its length. Letters: T frames, N points, P pairs, Q triples.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hand_object.render.rigid import HIGHEST

LENGTH, ANGLE = 0.005, 0.05  # meters and rad (per frame) that count as 1
LONGEST_GAP = 2  # frames between neighbors; over longer gaps nothing is compared
_SMALL = 1e-8  # squared sine below which an angle is taken as a series


class Neighbors(NamedTuple):
    """Frames that are compared: pairs [P, 2] and triples [Q, 3] of int32, in order of time."""

    pairs: np.ndarray
    triples: np.ndarray


def neighbors(there: np.ndarray, longest_gap: int = LONGEST_GAP) -> Neighbors:
    """Neighbors among the frames [T] that are there."""
    frames = np.flatnonzero(there).astype(np.int32)
    near = np.diff(frames) <= longest_gap
    pairs = np.stack([frames[:-1], frames[1:]], axis=1)[near]
    both = near[:-1] & near[1:]
    triples = np.stack([frames[:-2], frames[1:-1], frames[2:]], axis=1)[both]
    return Neighbors(pairs, triples)


def velocities(points: jax.Array, pairs: np.ndarray) -> jax.Array:
    """[P, N, 3] per frame, of points [T, N, 3]."""
    step = _steps(pairs[:, 0], pairs[:, 1])
    return (points[pairs[:, 1]] - points[pairs[:, 0]]) / step


def accelerations(points: jax.Array, triples: np.ndarray) -> jax.Array:
    """[Q, N, 3] per frame^2; x_2 - 2 x_1 + x_0 where no frame is missing."""
    before, after = velocities(points, triples[:, :2]), velocities(points, triples[:, 1:])
    return 2.0 * (after - before) / _steps(triples[:, 0], triples[:, 2])


def angular_velocities(rotations: jax.Array, pairs: np.ndarray) -> jax.Array:
    """[P, 1, 3] rad per frame in the frame of the body, of rotations [T, 3, 3]."""
    first, second = rotations[pairs[:, 0]], rotations[pairs[:, 1]]
    turn = jnp.einsum("pba,pbc->pac", first, second, precision=HIGHEST)
    return rotation_vector(turn)[:, None] / _steps(pairs[:, 0], pairs[:, 1])


def angular_accelerations(rotations: jax.Array, triples: np.ndarray) -> jax.Array:
    """[Q, 1, 3] rad per frame^2; both turns are seen from the frame in the middle."""
    before = angular_velocities(rotations, triples[:, :2])
    after = angular_velocities(rotations, triples[:, 1:])
    return 2.0 * (after - before) / _steps(triples[:, 0], triples[:, 2])


def rotation_vector(rotations: jax.Array) -> jax.Array:
    """[P, 3, 3] -> [P, 3] rad, with finite derivatives where nothing turns.

    For turns of less than half a circle, as those between frames are.
    """
    twice = jnp.stack(
        [
            rotations[:, 2, 1] - rotations[:, 1, 2],
            rotations[:, 0, 2] - rotations[:, 2, 0],
            rotations[:, 1, 0] - rotations[:, 0, 1],
        ],
        axis=-1,
    )
    axis = 0.5 * twice  # of the length of the sine
    square = jnp.sum(jnp.square(axis), axis=-1)
    small = square < _SMALL
    sine = jnp.sqrt(jnp.where(small, 1.0, square))
    cosine = 0.5 * (jnp.trace(rotations, axis1=-2, axis2=-1) - 1.0)
    ratio = jnp.where(small, 1.0 + square / 6.0, jnp.arctan2(sine, cosine) / sine)
    return ratio[:, None] * axis


def charbonnier(vectors: jax.Array, unit: float) -> jax.Array:
    """[] mean of sqrt(1 + |v / unit|^2) - 1: square when small, linear for a real fast motion."""
    square = jnp.sum(jnp.square(vectors / unit), axis=-1)
    # The same as the difference of roots, without its cancellation.
    return jnp.mean(square / (1.0 + jnp.sqrt(1.0 + square)))


def of_points(
    points: jax.Array, near: Neighbors, velocity: float, acceleration: float
) -> jax.Array:
    """[] of points [T, N, 3] in meters, with the weights of both differences."""
    total = jnp.zeros((), points.dtype)
    if velocity and len(near.pairs):
        total = total + velocity * charbonnier(velocities(points, near.pairs), LENGTH)
    if acceleration and len(near.triples):
        total = total + acceleration * charbonnier(accelerations(points, near.triples), LENGTH)
    return total


def of_rotations(
    rotations: jax.Array, near: Neighbors, velocity: float, acceleration: float
) -> jax.Array:
    """[] of rotations [T, 3, 3], likewise."""
    total = jnp.zeros((), rotations.dtype)
    if velocity and len(near.pairs):
        total = total + velocity * charbonnier(angular_velocities(rotations, near.pairs), ANGLE)
    if acceleration and len(near.triples):
        turns = angular_accelerations(rotations, near.triples)
        total = total + acceleration * charbonnier(turns, ANGLE)
    return total


def _steps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[P, 1, 1] frames between two columns."""
    return (second - first).astype(np.float32)[:, None, None]
