"""Contact against closed forms: points at known depths of a sphere, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.losses.contact import (
    LINEAR_FROM,
    SOFTNESS,
    attraction,
    contact,
    penetration,
    zone_distances,
)

UNIT, RADIUS = 0.005, 0.04  # meters


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def sphere(points: jax.Array) -> jax.Array:
    return jnp.linalg.norm(points, axis=-1) - RADIUS


def along_x(*depths: float) -> jax.Array:
    """[1, V, 3] points on the x axis at depths (meters) in the sphere."""
    return jnp.array([[[RADIUS - depth, 0, 0] for depth in depths]])


def test_five_millimeters_of_depth_count_one():
    found = penetration(sphere(along_x(0.005)), UNIT)
    np.testing.assert_allclose(found, [1.0], rtol=1e-12)
    # Over all vertices, and those outside count nothing.
    found = penetration(sphere(along_x(0.005, 0.0025, -0.003, -0.1)), UNIT)
    np.testing.assert_allclose(found, [(1 + 0.25) / 4], rtol=1e-12)


def test_deep_penetration_grows_linearly_and_smoothly():
    def value(depth):
        return penetration(-jnp.full((1, 1), depth), UNIT)[0]

    slope = jax.grad(value)
    edge = 2 * LINEAR_FROM / UNIT**2
    assert float(slope(LINEAR_FROM * (1 - 1e-9))) == pytest.approx(edge, rel=1e-6)
    assert float(slope(2 * LINEAR_FROM)) == pytest.approx(edge, rel=1e-12)
    assert float(value(LINEAR_FROM * (1 + 1e-9))) == pytest.approx((LINEAR_FROM / UNIT) ** 2)


def test_penetration_pushes_out_along_the_normal():
    # A point at depth d: d/dx of (d / unit)^2 is -2 d / unit^2 along the normal.
    slope = jax.grad(lambda x: penetration(sphere(x), UNIT)[0])(along_x(0.003))
    np.testing.assert_allclose(slope[0, 0], [-2 * 0.003 / UNIT**2, 0, 0], rtol=1e-9, atol=1e-9)


def test_a_zone_is_as_far_as_its_nearest_vertices():
    zones = jnp.array([[True, True, False], [False, False, True]])
    even = zone_distances(jnp.full((1, 3), 0.007), zones)
    np.testing.assert_allclose(even, [[0.007, 0.007]], rtol=1e-12)
    # One vertex at 1 mm and one 20 mm farther: what the far one adds is 20 mm e^-10 at most.
    found = zone_distances(jnp.array([[0.001, 0.021, 0.5]]), zones)
    assert float(found[0, 0]) == pytest.approx(0.001, abs=0.02 * np.exp(-0.02 / SOFTNESS))
    assert float(found[0, 1]) == pytest.approx(0.5)


def test_attraction_is_over_zones_that_touch_and_are_near():
    zones = jnp.eye(3, dtype=bool)
    distances = jnp.array([[0.005, 0.010, 0.030]])
    touching = jnp.array([[True, True, True]])
    found = attraction(distances, zones, touching, UNIT, 0.02)
    np.testing.assert_allclose(found, [(1 + 4) / 3], rtol=1e-12)  # the third is out of reach
    apart = attraction(distances, zones, jnp.array([[True, False, False]]), UNIT, 0.02)
    np.testing.assert_allclose(apart, [1.0], rtol=1e-12)
    none = attraction(distances, zones, jnp.zeros((1, 3), bool), UNIT, 0.02)
    np.testing.assert_array_equal(none, [0.0])


def test_a_vertex_inside_is_not_drawn_deeper():
    zones, touching = jnp.ones((1, 1), bool), jnp.ones((1, 1), bool)
    slope = jax.grad(lambda d: attraction(d, zones, touching, UNIT, 0.02)[0])
    assert float(slope(jnp.array([[-0.003]]))[0, 0]) == 0
    assert float(slope(jnp.array([[0.003]]))[0, 0]) == pytest.approx(2 * 0.003 / UNIT**2)


def test_frames_outside_of_a_grasp_have_neither_value_nor_gradient():
    zones, touching = jnp.ones((1, 2), bool), jnp.ones((2, 1), bool)
    weights = {"unit": UNIT, "reach": 0.02, "penetration_weight": 5.0, "attraction_weight": 1.0}

    def total(distances, holding):
        return contact(distances, zones, touching, holding, **weights)

    distances = jnp.array([[-0.005, 0.010], [-0.005, 0.010]])
    one = total(distances, jnp.array([True, False]))
    assert float(one.weight) == 1
    # The zone is in touch, but for the share of its other vertex: 10 mm times e^-5.
    assert 0 <= float(one.mean()) - 5.0 * 0.5 <= (0.010 * np.exp(-5) / UNIT) ** 2
    slope = jax.grad(lambda d: total(d, jnp.array([True, False])).sum)(distances)
    assert float(jnp.abs(slope[1]).max()) == 0 and float(jnp.abs(slope[0]).max()) > 0
    nobody = total(distances, jnp.zeros(2, bool))
    assert float(nobody.mean()) == 0
