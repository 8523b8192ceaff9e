"""A small hand for tests: one finger of two bones along x, with a closed form for every pose."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from hand_object.render.placement import HandPlacement
from hand_object.render.skinning import Capsules

LENGTH, RADIUS = 0.04, 0.01  # meters, of each bone
JOINT = np.array([LENGTH, 0.0, 0.0])


def bend(angle: float, translation=(0.0, 0.0, 0.0)) -> np.ndarray:
    """[2, 4, 4]: the second bone turned about z at the joint; both moved."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    transforms = np.stack([np.eye(4), np.eye(4)])
    transforms[1, :3, :3], transforms[1, :3, 3] = turn, JOINT - turn @ JOINT
    transforms[:, :3, 3] += translation
    return transforms


def tube(rings: int = 41, around: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [V, 3] around both bones and their weights [V, 2], smooth over 1 cm."""
    along = np.linspace(0, 2 * LENGTH, rings)
    turn = np.linspace(0, 2 * np.pi, around, endpoint=False)
    x = np.repeat(along, around)
    y, z = (np.tile(RADIUS * f(turn), rings) for f in (np.cos, np.sin))
    second = np.clip((x - LENGTH) / 0.01 + 0.5, 0, 1)
    return np.stack([x, y, z], axis=-1), np.stack([1 - second, second], axis=-1)


def capsules() -> Capsules:
    starts = jnp.array([[0.0, 0, 0], [LENGTH, 0, 0]])
    ends = jnp.array([[LENGTH, 0, 0], [2 * LENGTH, 0, 0]])
    return Capsules(starts, ends, jnp.full(2, RADIUS), jnp.arange(2))


def skin(points: np.ndarray, weights: np.ndarray, transforms: np.ndarray) -> np.ndarray:
    """Linear blend skinning, one point after the other."""
    posed = np.zeros_like(points)
    for row, (point, weight) in enumerate(zip(points, weights)):
        for joint, share in enumerate(weight):
            posed[row] += share * (transforms[joint, :3, :3] @ point + transforms[joint, :3, 3])
    return posed


def finger(transforms: np.ndarray, scene_scale: float = 5.0) -> HandPlacement:
    """The finger in frames [F, 2, 4, 4]."""
    vertices, weights = tube()
    posed = np.stack([skin(vertices, weights, frame) for frame in transforms])
    return HandPlacement(
        jnp.asarray(posed, jnp.float32),
        jnp.asarray(transforms, jnp.float32),
        jnp.asarray(weights, jnp.float32),
        capsules(),
        jnp.array([LENGTH, 0.0, 0.0]),
        jnp.float32(LENGTH + RADIUS),
        jnp.float32(scene_scale),
        jnp.zeros((len(transforms), 6)),
    )
