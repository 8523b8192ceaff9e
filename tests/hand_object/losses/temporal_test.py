"""Smoothness over time against closed forms, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hand_object.losses import temporal
from hand_object.losses.temporal import ANGLE, LENGTH, neighbors


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def track(values) -> jax.Array:
    """[T, 1, 3] points that move along x."""
    return jnp.stack([jnp.asarray(values), 0 * jnp.asarray(values)], axis=-1)[:, None][
        ..., [0, 1, 1]
    ]


def test_neighbors_are_pairs_and_triples_without_long_gaps():
    there = np.array([1, 1, 0, 1, 0, 0, 1, 1], bool)
    found = neighbors(there)
    assert found.pairs.tolist() == [[0, 1], [1, 3], [6, 7]]
    assert found.triples.tolist() == [[0, 1, 3]]
    for few in (0, 1):
        short = neighbors(np.arange(4) < few)
        assert short.pairs.shape == (0, 2) and short.triples.shape == (0, 3)


def test_a_parabola_has_one_acceleration_with_and_without_gaps():
    t = np.arange(12.0)
    points = track(0.5 * 0.003 * t**2 + 0.01 * t - 0.2)
    for there in (np.ones(12, bool), ~np.isin(np.arange(12), [3, 7, 10])):
        near = neighbors(there)
        found = temporal.accelerations(points, near.triples)
        np.testing.assert_allclose(found[:, 0, 0], 0.003, rtol=1e-9)
    even = temporal.velocities(track(0.01 * t), neighbors(~np.isin(np.arange(12), [4])).pairs)
    np.testing.assert_allclose(even[:, 0, 0], 0.01, rtol=1e-9)


def test_charbonnier_is_half_the_square_when_small_and_linear_when_large():
    def value(length):
        return float(temporal.charbonnier(jnp.array([[[length, 0, 0]]]), LENGTH))

    assert value(LENGTH) == pytest.approx(np.sqrt(2) - 1, rel=1e-12)
    # sqrt(1 + q^2) - 1 = q^2 / 2 - q^4 / 8 + ..., and q - 1 + 1 / (2 q) - ...
    assert value(1e-3 * LENGTH) == pytest.approx(0.5e-6, rel=1e-6)
    assert value(1e3 * LENGTH) == pytest.approx(999.0005, rel=1e-6)


def test_even_motion_has_no_acceleration_term_and_a_jump_pulls_its_frame_back():
    t = np.arange(9.0)
    near = neighbors(np.ones(9, bool))

    def value(x):
        return temporal.of_points(track(x), near, 0.0, 1.0)

    assert float(value(0.01 * t)) == pytest.approx(0, abs=1e-12)
    jump = 0.01 * t
    jump[4] += 0.004
    slope = np.asarray(jax.grad(value)(jnp.asarray(jump)))
    assert np.argmax(slope) == 4 and slope[4] > 0
    # An absent frame is neither looked at nor moved.
    without = neighbors(np.arange(9) != 4)
    gone = jax.grad(lambda x: temporal.of_points(track(x), without, 0.0, 1.0))(jnp.asarray(jump))
    assert float(jnp.abs(gone).max()) == pytest.approx(0, abs=1e-9)


def test_turns_are_measured_about_any_axis_and_from_any_start():
    random = np.random.default_rng(0)
    start = Rotation.from_rotvec(random.normal(size=3))
    rate = np.array([0.03, -0.05, 0.02])
    turns = [start * Rotation.from_rotvec(frame * rate) for frame in range(7)]
    rotations = jnp.asarray(np.stack([turn.as_matrix() for turn in turns]))
    near = neighbors(np.arange(7) != 3)
    found = temporal.angular_velocities(rotations, near.pairs)
    np.testing.assert_allclose(found[:, 0], np.tile(rate, (len(found), 1)), atol=1e-12)
    even = temporal.of_rotations(rotations, near, 0.0, 1.0)
    assert float(even) == pytest.approx(0, abs=1e-12)
    moving = float(temporal.of_rotations(rotations, near, 1.0, 0.0))
    wanted = np.sqrt(1 + (np.linalg.norm(rate) / ANGLE) ** 2) - 1
    assert moving == pytest.approx(wanted, rel=1e-9)


def test_rotation_vectors_are_those_of_scipy_with_finite_slopes_at_rest():
    random = np.random.default_rng(1)
    vectors = random.normal(size=(50, 3))
    vectors *= random.uniform(0, 3.0, (50, 1)) / np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[0] = 0
    vectors[1] = 1e-7
    rotations = Rotation.from_rotvec(vectors).as_matrix()
    found = temporal.rotation_vector(jnp.asarray(rotations))
    np.testing.assert_allclose(found, vectors, atol=1e-9)
    slope = jax.grad(lambda r: temporal.rotation_vector(r).sum())(jnp.eye(3)[None])
    assert bool(jnp.isfinite(slope).all()) and float(jnp.abs(slope).max()) > 0
