"""A hand that is known by its mesh in each frame: the poses of a model of the same topology.

Each joint's transform has a closed form (Kabsch 1976) where the skin moves with it alone; from
there, Gauss and Newton's method on all vertices finds pose and translation of each frame, and, of
models with shape numbers, the shape that all frames share.

Letters: T frames, V vertices, J joints, S shape numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from hand_object.hands.model import HandModel
from hand_object.hands.skinning import pose_hand
from hand_object.render.rigid import HIGHEST
from training.errors import InputError

STEPS, ROUNDS = 6, 3  # of Gauss-Newton in a frame; of poses and shape in turn
LEAST_EFFECT = 1e-6  # of an unknown, relative to the largest one
DAMPING = 1e-6  # of the normal equations, relative to their diagonal
SHAPE_FRAMES = 12  # that the shape is found from
LEAST_WEIGHT = 0.5  # of vertices that a joint's transform is first read from


class Registration(NamedTuple):
    """pose [T, J, 3] rad, translation [T, 3] m, shape [S], errors [T]: mean over vertices, m."""

    pose: np.ndarray
    translation: np.ndarray
    shape: np.ndarray
    errors: np.ndarray


def register(model: HandModel, vertices: np.ndarray) -> Registration:
    """The poses in which a model has given vertices [T, V, 3], meters.

    Raises:
      InputError: the model has another number of vertices.
    """
    count = len(np.asarray(model.template))
    if vertices.shape[1] != count:
        maybe = ", as MANO's have: give your MANO .pkl" * (vertices.shape[1] == 778)
        raise InputError(
            f"meshes of the {model.side} hand have {vertices.shape[1]} vertices{maybe}, but hand "
            f"model {model.name} has {count}; name the model that they were made with"
        )
    targets = np.asarray(vertices, np.float32)
    shape = np.zeros(model.shape_size, np.float32)
    poses = np.stack([_closed_form(model, frame) for frame in targets.astype(np.float64)])
    poses, errors = _fit(model, poses.astype(np.float32), targets, shape)
    few = np.unique(np.linspace(0, len(targets) - 1, SHAPE_FRAMES).round().astype(int))
    for _ in range(ROUNDS if model.shape_size else 0):
        shape = _fit_shape(model, poses[few], targets[few], shape)
        poses, errors = _fit(model, poses, targets, shape)
    return Registration(poses[:, :-1], poses[:, -1], shape, errors)


def _closed_form(model: HandModel, target: np.ndarray) -> np.ndarray:
    """[J + 1, 3]: axis-angles of the joints, then the translation."""
    template, weights = (np.asarray(a, np.float64) for a in (model.template, model.weights))
    joints = np.asarray(model.joints, np.float64)
    turns, pose = [], np.zeros((len(joints) + 1, 3))
    for joint, parent in enumerate(model.parents):
        own = np.where(weights[:, joint] > LEAST_WEIGHT, weights[:, joint], 0)
        turn = _kabsch(template, target, own) if (own > 0).sum() >= 3 else None
        if turn is None:  # a joint without skin of its own moves with the one before it
            turn = turns[parent] if parent >= 0 else _kabsch(template, target, weights.sum(axis=1))
        turns.append(turn)
        local = turn if parent < 0 else turns[parent].T @ turn
        pose[joint] = Rotation.from_matrix(local).as_rotvec() - np.asarray(model.pose_mean)[joint]
    own = weights[:, 0] if weights[:, 0].sum() > 1 else np.ones(len(template))
    own = own / own.sum()
    # x -> R (x - J) + J + translation for the skin of the wrist.
    middle = turns[0] @ (own @ template - joints[0]) + joints[0]
    pose[-1] = own @ target - middle
    return pose


def _kabsch(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The rotation [3, 3] that brings weighted points nearest to others."""
    share = (weights / weights.sum())[:, None]
    a, b = source - (share * source).sum(axis=0), target - (share * target).sum(axis=0)
    u, _, vt = np.linalg.svd((share * a).T @ b)
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(vt.T @ u.T))])
    return vt.T @ flip @ u.T


def _skin(model: HandModel, pose: jax.Array, shape: jax.Array) -> jax.Array:
    """[V, 3] of one pose [J + 1, 3]."""
    return pose_hand(model, pose[None, :-1], pose[None, -1], shape).vertices[0]


def _fit(model: HandModel, poses, targets, shape) -> tuple[np.ndarray, np.ndarray]:
    """Poses [T, J + 1, 3] and their errors [T]."""
    # Frame by frame, so that one program serves sequences of any length.
    pairs = zip(poses, targets, strict=True)
    found = [_fit_frame(model, pose, target, shape) for pose, target in pairs]
    return np.stack([pose for pose, _ in found]), np.array([error for _, error in found])


@jax.jit
def _fit_frame(model: HandModel, start: jax.Array, target: jax.Array, shape: jax.Array):
    def residual(flat):
        return (_skin(model, flat.reshape(start.shape), shape) - target).reshape(-1)

    def step(flat, _):
        change = _least_squares(jax.jacfwd(residual)(flat), residual(flat)[:, None])
        return flat - change[:, 0], None

    flat, _ = jax.lax.scan(step, start.reshape(-1), None, length=STEPS)
    away = jnp.linalg.norm(residual(flat).reshape(-1, 3), axis=1)
    return flat.reshape(start.shape), jnp.mean(away)


def _fit_shape(model: HandModel, poses, targets, shape) -> np.ndarray:
    """[S] after one step over all frames given, in which poses give way (variable projection)."""
    pairs = zip(poses, targets, strict=True)
    normal = np.sum([_normal_of_shape(model, pose, target, shape) for pose, target in pairs], 0)
    return shape - np.asarray(_solved(normal[:-1, :-1], normal[:-1, -1:]))[:, 0]


@jax.jit
def _normal_of_shape(model: HandModel, pose: jax.Array, target: jax.Array, shape: jax.Array):
    """[S + 1, S + 1]: products of what shape numbers move, and of what is left, in one frame."""

    def residual(flat, numbers):
        return (_skin(model, flat.reshape(pose.shape), numbers) - target).reshape(-1)

    left = residual(pose.reshape(-1), shape)
    slopes, of_shape = jax.jacfwd(residual, (0, 1))(pose.reshape(-1), shape)
    both = jnp.concatenate([of_shape, left[:, None]], axis=1)
    both = both - _product(slopes, _least_squares(slopes, both))  # what poses cannot do themselves
    return _product(both.T, both)


def _least_squares(slopes: jax.Array, values: jax.Array) -> jax.Array:
    """x [n, k] for which slopes [m, n] x come nearest to values [m, k]."""
    return _solved(_product(slopes.T, slopes), _product(slopes.T, values))


@jax.jit
def _solved(normal: jax.Array, right: jax.Array) -> jax.Array:
    """[n, k] of normal equations; unknowns without an effect are 0."""
    # Each unknown in units of its own effect, so that meters, rad and shape numbers are alike.
    size = jnp.sqrt(jnp.diag(normal))
    size = jnp.where(size > LEAST_EFFECT * jnp.max(size), size, jnp.inf)
    scaled = (normal / size[:, None] / size[None]).at[jnp.diag_indices(len(size))].set(1 + DAMPING)
    return jnp.linalg.solve(scaled, right / size[:, None]) / size[:, None]


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=HIGHEST)
