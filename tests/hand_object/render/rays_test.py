"""Rays: the pixel they are asked for, both conventions of cameras, where they cross bodies."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.render.rays import (
    box_interval,
    camera_rays,
    common,
    from_opengl,
    sphere_interval,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_points_on_a_ray_are_projected_to_its_pixel(new_key):
    intrinsics = np.array([[420.0, 3.0, 159.5], [0, 400.0, 119.5], [0, 0, 1]])
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    rotation *= np.linalg.det(rotation)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, [0.3, -0.2, 1.0]
    pixels = np.array([[0.0, 0], [319, 239], [159.5, 119.5], [20, 200]])
    with jax.enable_x64(True):
        origins, directions = camera_rays(*(jnp.asarray(a) for a in (pixels, intrinsics, pose)))
    points = np.asarray(origins) + 2.5 * np.asarray(directions)
    local = (points - pose[:3, 3]) @ rotation
    assert np.all(local[:, 2] > 0)
    projected = local @ intrinsics.T
    np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], pixels, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), np.ones(4), rtol=1e-12)
    np.testing.assert_allclose(directions[2], rotation[:, 2], atol=1e-12)


def test_an_opengl_camera_looks_along_its_negative_z():
    turned = np.asarray(from_opengl(jnp.eye(4)))
    np.testing.assert_array_equal(turned[:3, 2], [0, 0, -1])
    np.testing.assert_array_equal(turned[:3, 1], [0, -1, 0])
    np.testing.assert_array_equal(turned[:3, 0], [1, 0, 0])


def test_spheres_are_entered_left_and_missed():
    origins = jnp.array([[0.0, 0, -5], [0, 0, 0], [0, 3.0, -5], [0, 0, 5]])
    directions = jnp.broadcast_to(jnp.array([[0.0, 0, 1]]), (4, 3))
    near, far = sphere_interval(origins, directions, 2.0)
    np.testing.assert_allclose(near[:2], [3, 0], atol=1e-6)
    np.testing.assert_allclose(far[:2], [7, 2], atol=1e-6)
    np.testing.assert_array_equal((far - near)[2:], [0, 0])
    slope = jax.grad(lambda o: jnp.sum(jnp.stack(sphere_interval(o, directions, 2.0))))(origins)
    assert np.all(np.isfinite(slope))


def test_boxes_agree_with_a_dense_walk(new_key):
    origins = jax.random.uniform(new_key(), (40, 3), minval=-2.0, maxval=2.0)
    # Most of them toward the box.
    directions = 0.7 * jax.random.normal(new_key(), (40, 3)) - origins
    directions = (
        (directions / jnp.linalg.norm(directions, axis=-1, keepdims=True))
        .at[0]
        .set(jnp.array([0.0, 0.0, 1.0]))
    )
    low, high = jnp.array([-0.5, -0.3, -0.2]), jnp.array([0.4, 0.6, 0.9])
    near, far = (np.asarray(d) for d in box_interval(origins, directions, low, high))
    t = np.linspace(0, 8, 8001)
    points = np.asarray(origins)[:, None] + t[:, None] * np.asarray(directions)[:, None]
    inside = np.all((points >= np.asarray(low)) & (points <= np.asarray(high)), axis=-1)
    np.testing.assert_allclose(inside.sum(axis=1) * 1e-3, far - near, atol=2.1e-3)
    hit = inside.any(axis=1)
    assert 3 < hit.sum() < 37
    np.testing.assert_allclose(t[inside.argmax(axis=1)][hit], near[hit], atol=1.1e-3)


def test_what_two_intervals_share():
    first = (jnp.array([0.0, 0.0]), jnp.array([2.0, 1.0]))
    second = (jnp.array([1.0, 3.0]), jnp.array([5.0, 4.0]))
    near, far = common(first, second)
    np.testing.assert_array_equal(near, [1, 0])
    np.testing.assert_array_equal(far, [2, 0])
