"""Pose corrections against scipy rotations, and recovery of a known disturbance."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from splats.losses import poses


def rigid(seed):
    generator = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    matrix[:3, 3] = generator.normal(size=3)
    return matrix


def test_no_correction_is_exactly_the_pose():
    pose = jnp.asarray(rigid(0), jnp.float32)
    np.testing.assert_array_equal(poses.corrected(pose, poses.no_corrections(1)[0]), pose)


def test_correction_acts_on_the_camera_side(new_key):
    pose = rigid(1)
    correction = np.asarray(jax.random.normal(new_key(), (9,)), np.float64) * 0.2
    rotation = np.asarray(
        poses.six_to_matrix(jnp.asarray(correction[3:] + np.eye(3)[:2].ravel(), jnp.float32))
    )
    assert np.isclose(Rotation.from_matrix(rotation).as_matrix(), rotation, atol=1e-5).all()
    step = np.eye(4)
    step[:3, :3], step[:3, 3] = rotation, correction[:3]
    expected = np.linalg.inv(np.linalg.inv(pose) @ step)
    found = poses.corrected(jnp.asarray(pose, jnp.float32), jnp.asarray(correction, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_descent_on_the_correction_recovers_a_disturbed_pose():
    true = jnp.asarray(rigid(2), jnp.float32)
    disturbance = jnp.asarray([0.05, -0.03, 0.02, 0.0, 0.04, -0.02, -0.04, 0.0, 0.03])
    start = poses.corrected(true, disturbance)
    points = jnp.asarray(np.random.default_rng(3).normal(size=(40, 3)), jnp.float32)

    def distance(correction):
        pose = poses.corrected(start, correction)
        offset = (pose - true)[:3]
        return jnp.mean(jnp.sum((points @ offset[:, :3].T + offset[None, :, 3]) ** 2, axis=1))

    @jax.jit
    def descend(correction):
        return jax.lax.fori_loop(0, 400, lambda _, c: c - 0.1 * jax.grad(distance)(c), correction)

    found = descend(poses.no_corrections(1)[0])
    assert float(distance(found)) < 1e-8 < 1e-4 < float(distance(jnp.zeros(9)))
