"""Distances to meshes are exact, and a field learns a template before it sees an image."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.config import preset
from hand_object.fields.mesh_distance import mesh_distance, mesh_triangles
from hand_object.fields.prefit import (
    prefit,
    prefit_error,
    sample_template,
    surface_points,
)
from hand_object.fields.sdf_network import init_sdf
from training.errors import InputError

SIDES = np.array([0.5, 0.3, 0.2])


def box():
    """A box of half sides SIDES: 12 triangles, counterclockwise seen from outside."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * SIDES
    faces = []
    for axis in range(3):
        for side in (0, 1):
            face = [i for i in range(8) if (i >> (2 - axis)) & 1 == side]
            a, b, c, d = face
            faces += [(a, b, c), (b, d, c)]
    faces = np.array(faces)
    normals = np.cross(
        corners[faces[:, 1]] - corners[faces[:, 0]], corners[faces[:, 2]] - corners[faces[:, 0]]
    )
    inward = np.sum(normals * corners[faces].mean(axis=1), axis=-1) < 0
    faces[inward] = faces[inward][:, ::-1]
    return corners, faces


def box_distance(x):
    beyond = np.abs(x) - SIDES
    outside = np.linalg.norm(np.maximum(beyond, 0), axis=-1)
    return outside + np.minimum(beyond.max(axis=-1), 0)


@pytest.fixture(scope="module")
def template():
    return sample_template(*box(), count=4096)


def test_distances_to_a_box_are_exact_in_and_outside(new_key):
    x = np.asarray(jax.random.uniform(new_key(), (300, 3), minval=-1.0, maxval=1.0))
    got = jax.jit(mesh_distance)(jnp.asarray(x), mesh_triangles(*box()))
    assert 5 < np.sum(got < 0) < 100
    np.testing.assert_allclose(got, box_distance(x), atol=2e-6)


def test_a_hole_does_not_turn_the_inside_out():
    corners, faces = box()
    open_box = faces[~np.all(corners[faces][:, :, 0] > 0, axis=1)]  # without one end
    assert len(open_box) == 10
    x = jnp.array([[-0.3, 0.0, 0.0], [-0.7, 0.0, 0.0], [0.0, 0.35, 0.0]])
    got = mesh_distance(x, jnp.asarray(mesh_triangles(corners, open_box)))
    np.testing.assert_array_equal(np.sign(got), [-1, 1, 1])


def test_triangles_without_area_are_left_out_and_none_at_all_is_told():
    corners, faces = box()
    flat = np.concatenate([faces, [[0, 0, 1]]])
    assert len(mesh_triangles(corners, flat)) == 12
    with pytest.raises(InputError, match="no triangle"):
        mesh_triangles(corners, flat[-1:])


def test_surface_points_lie_on_the_surface_and_are_spread_by_area():
    triangles = mesh_triangles(*box())
    x = surface_points(triangles, 4000, np.random.default_rng(0))
    np.testing.assert_allclose(box_distance(x), np.zeros(4000), atol=1e-6)
    ends = np.mean(np.abs(x[:, 0]) > SIDES[0] - 1e-6)
    sizes = SIDES[[1, 0, 0]] * SIDES[[2, 2, 1]]
    share = sizes[0] / sizes.sum()
    assert ends == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 4000))


def test_templates_fill_the_unit_ball(template):
    radius = np.linalg.norm(SIDES)
    assert template.radius == pytest.approx(radius)
    moved = sample_template(box()[0] + [3.0, -2.0, 7.0], box()[1], count=64)
    np.testing.assert_allclose(moved.center, [3, -2, 7], atol=1e-6)
    expected = box_distance(template.points * radius) / radius
    np.testing.assert_allclose(template.distances, expected, atol=5e-6)


@pytest.mark.parametrize("kind", ["triplane", "frequencies"])
def test_a_field_learns_its_template(kind, template, new_key):
    config = preset("smoke")
    if kind == "frequencies":
        encoding = dataclasses.replace(config.encoding, kind=kind, frequencies=2)
        config = dataclasses.replace(config, encoding=encoding)
    params = init_sdf(new_key(), config)
    before = prefit_error(params, config, template)
    learned, losses = prefit(new_key(), params, config, template, updates=150, batch=256)
    after = prefit_error(learned, config, template)
    assert np.all(np.isfinite(losses))
    assert before > 0.1
    assert after < 0.25 * before
