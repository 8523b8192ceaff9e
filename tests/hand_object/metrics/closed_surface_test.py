"""Distances of points from meshes equal closed forms and a brute force over all triangles."""

from __future__ import annotations

import numpy as np
import pytest

from hand_object.data.solids import solid
from hand_object.metrics.closed_surface import ClosedSurface, triangle_distance
from hand_object.metrics.surfaces import sample_surface


def brute_force(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Every triangle, signed by its solid angle (Van Oosterom and Strackee 1983)."""
    corners = vertices[faces][None] - points[:, None, None]
    a, b, c = np.moveaxis(corners, 2, 0)
    la, lb, lc = (np.linalg.norm(x, axis=-1) for x in (a, b, c))
    dot = lambda x, y: np.einsum("nfi,nfi->nf", x, y)  # noqa: E731
    top = dot(a, np.cross(b, c))
    rest = la * lb * lc + dot(a, b) * lc + dot(b, c) * la + dot(c, a) * lb
    inside = np.arctan2(top, rest).sum(axis=1) > np.pi
    distance = triangle_distance(points[:, None], vertices[faces][None]).min(axis=1)
    return np.where(inside, -distance, distance)


@pytest.mark.parametrize("name", ["box", "dumbbell"])
def test_the_same_as_by_brute_force(name):
    vertices, faces = solid(name)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    random = np.random.default_rng(3)
    points = random.uniform(low - 0.02, high + 0.02, (1500, 3))
    surface = ClosedSurface(vertices, faces)
    wanted = brute_force(points, vertices, faces)
    found = surface(points)
    np.testing.assert_array_equal(found < 0, wanted < 0)
    gap = surface._tree.query(sample_surface(vertices, faces, 5000, seed=9))[0].max()
    excess = np.abs(found) - np.abs(wanted)
    assert excess.min() > -1e-12
    assert excess.max() < gap
    near = np.abs(wanted) < 0.005
    assert near.sum() > 20
    assert np.quantile(excess[near], 0.95) < 1e-12


def test_points_on_lines_through_vertices_are_told_apart():
    """A box along the axes, asked on a lattice that its own vertices lie on."""
    vertices, faces = solid("box")
    half = vertices.max(axis=0)
    t = np.linspace(-1.5, 1.5, 13)
    points = np.stack(np.meshgrid(t, t, t, indexing="ij"), axis=-1).reshape(-1, 3)
    points = points[(np.abs(np.abs(points) - 1) > 0.01).all(axis=1)]
    wanted = (np.abs(points) < 1).all(axis=1)
    np.testing.assert_array_equal(ClosedSurface(vertices, faces).contains(points * half), wanted)


def test_a_hole_does_not_turn_the_inside_out():
    vertices, faces = solid("ball")
    torn = ClosedSurface(vertices, np.delete(faces, np.arange(0, len(faces), 25), axis=0))
    points = np.random.default_rng(4).uniform(-1.2, 1.2, (2000, 3)) * vertices.max()
    whole = ClosedSurface(vertices, faces).contains(points)
    assert (torn.contains(points) == whole).mean() > 0.995


def test_distance_from_a_triangle_is_that_of_its_nearest_part():
    triangle = np.array([[0.0, 0, 0], [2, 0, 0], [0, 1, 0]])
    points = np.array([[0.3, 0.2, 0.7], [1, -0.5, 0], [3, 0, 0], [-0.3, 0, 0.4], [0, 1.5, 0]])
    found = triangle_distance(points, np.broadcast_to(triangle, (5, 3, 3)))
    np.testing.assert_allclose(found, [0.7, 0.5, 1, 0.5, 0.5], atol=1e-12)
