"""Meshes of distances: the right size, closed, outward, one piece; a reason where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from hand_object import meshing
from hand_object.hands.mesh import signed_volume
from training.errors import ConfigError, InputError

CUBE = (np.full(3, -1.0), np.full(3, 1.0))


def ball(radius: float, center=(0.0, 0, 0)):
    return lambda x: np.linalg.norm(x - np.array(center), axis=-1) - radius


@pytest.mark.parametrize("resolution", [24, 64, 128])
def test_a_ball_has_its_place_and_volume(resolution):
    """A chord is inside of the arc by at most its squared length over 8 radii."""
    center, radius = np.array([0.1, -0.2, 0.15]), 0.6
    mesh = meshing.extract(ball(radius, center), CUBE, resolution)
    cell = 2 / resolution
    distance = np.linalg.norm(mesh.vertices - center, axis=1)
    assert np.abs(distance - radius).max() < 3 * cell**2 / (8 * radius) * 2
    volume = signed_volume(mesh.vertices, mesh.faces)
    assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=3 * (cell / radius) ** 2)
    assert volume > 0
    assert meshing.is_watertight(mesh)
    np.testing.assert_allclose(mesh.vertices.mean(axis=0), center, atol=cell / 10)


def test_a_box_that_is_no_cube_is_covered():
    low, high = np.array([-0.5, 0.0, 2.0]), np.array([0.5, 0.3, 2.31])
    middle = (low + high) / 2
    mesh = meshing.extract(ball(0.14, middle), (low, high), 100)
    assert np.ptp(mesh.vertices, axis=0) == pytest.approx([0.28] * 3, abs=0.002)
    np.testing.assert_allclose(mesh.vertices.mean(axis=0), middle, atol=1e-3)


def test_fine_cells_are_asked_only_near_the_surface():
    asked = []

    def counted(x):
        asked.append(len(x))
        return ball(0.6)(x)

    meshing.extract(counted, CUBE, 128)
    assert sum(asked) < 0.25 * 129**3


def test_a_distance_of_the_wrong_size_loses_nothing():
    """Learned distances grow faster or slower than they should; cells of another sign are kept."""
    thin = meshing.extract(lambda x: 20 * ball(0.6)(x), CUBE, 128)
    right = meshing.extract(ball(0.6), CUBE, 128)
    assert len(thin.faces) == len(right.faces)


def test_watertight_is_each_edge_once_in_both_directions():
    mesh = meshing.extract(ball(0.6), CUBE, 24)
    assert not meshing.is_watertight(meshing.Mesh(mesh.vertices, mesh.faces[1:]))
    turned = np.concatenate([mesh.faces[:1, ::-1], mesh.faces[1:]])
    assert not meshing.is_watertight(meshing.Mesh(mesh.vertices, turned))


def test_the_largest_piece_is_kept():
    def two(x):
        return np.minimum(ball(0.4, (0.4, 0, 0))(x), ball(0.2, (-0.6, 0, 0))(x))

    mesh = meshing.extract(two, CUBE, 64)
    assert mesh.vertices[:, 0].min() > -0.05
    assert mesh.faces.max() == len(mesh.vertices) - 1


def test_a_surface_that_leaves_the_box_is_closed_at_it():
    mesh = meshing.extract(ball(0.6, (0.9, 0, 0)), CUBE, 64)
    assert meshing.is_watertight(mesh)
    assert mesh.vertices[:, 0].max() == 1.0
    cap = 0.5  # height of the missing cap
    full = 4 / 3 * np.pi * 0.6**3
    wanted = full - np.pi * cap**2 * (3 * 0.6 - cap) / 3
    assert signed_volume(mesh.vertices, mesh.faces) == pytest.approx(wanted, rel=0.02)


def test_faces_that_look_inward_are_turned():
    mesh = meshing.extract(ball(0.6), CUBE, 24)
    turned = meshing.outward(mesh.vertices, mesh.faces[:, ::-1])
    assert signed_volume(mesh.vertices, turned) > 0


def test_no_surface_is_said_with_its_distances():
    with pytest.raises(InputError, match=r"the object has no surface.*from 0\.5.* to .*outside"):
        meshing.extract(lambda x: ball(0)(x) + 0.5, CUBE, 32, "the object")
    with pytest.raises(InputError, match="all inside"):
        meshing.extract(lambda x: -1 - ball(0)(x), CUBE, 32)


def test_broken_distances_and_grids_are_refused():
    with pytest.raises(InputError, match="not finite"):
        meshing.extract(lambda x: np.where(x[:, 0] > 0.5, np.nan, ball(0.6)(x)), CUBE, 32)
    with pytest.raises(ConfigError, match="4 cells or more"):
        meshing.extract(ball(0.6), CUBE, 2)
    with pytest.raises(ConfigError, match="volume"):
        meshing.extract(ball(0.6), (np.zeros(3), np.array([1.0, 1, 0])), 32)
