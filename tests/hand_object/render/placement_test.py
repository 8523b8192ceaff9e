"""Placements: what is put into the scene is found again, and normals turn with it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hand_object.config import SkinningConfig
from hand_object.render.nodes import scene_normals
from hand_object.render.placement import ObjectPlacement, canonical, interval
from hand_object.render.rigid import (
    Similarity,
    object_similarity,
    rotation_matrix,
    to_canonical,
    to_scene,
)
from hand_object.render.skinning import (
    capsule_distances,
    capsule_weights,
    inverse3,
    unskin,
    vertex_weights,
)
from tests.hand_object.posed_finger import LENGTH, RADIUS, bend, capsules, finger, skin, tube

pytestmark = pytest.mark.usefixtures("quick_compilation")
CLOSE = SkinningConfig(vertex_softness=5e-4)


def test_rotations_agree_with_scipy_and_have_derivatives_at_zero(new_key):
    vectors = np.concatenate([np.random.default_rng(0).normal(size=(20, 3)), np.zeros((1, 3))])
    vectors[:5] *= 1e-3
    got = rotation_matrix(jnp.asarray(vectors, jnp.float32))
    np.testing.assert_allclose(got, Rotation.from_rotvec(vectors).as_matrix(), atol=2e-6)
    slope = jax.jit(jax.jacfwd(lambda v: rotation_matrix(v[None])[0]))(jnp.zeros(3))
    # d R / d v at zero is the cross product: R_21 moves with v_z, R_12 against it.
    np.testing.assert_allclose([slope[1, 0, 2], slope[0, 1, 2]], [1, -1], atol=1e-6)
    assert np.all(np.isfinite(slope))
    bent = jax.hessian(lambda v: jnp.sum(jnp.sin(rotation_matrix(v[None]))))
    curvature = jax.jit(bent)(jnp.zeros(3))
    assert np.all(np.isfinite(curvature))


def object_pose(frames=3):
    random = np.random.default_rng(1)
    arrays = random.normal(size=(2, frames, 3)).astype(np.float32)
    return object_similarity(
        jnp.asarray(arrays[0]),
        jnp.asarray(0.1 * arrays[1]),
        jnp.float32(0.8),
        jnp.float32(4.7),
        jnp.array([0.01, -0.02, 0.03]),
        jnp.float32(0.07),
    ), arrays


def test_objects_follow_the_chain_of_the_original():
    pose, (vectors, moves) = object_pose()
    x = np.random.default_rng(2).uniform(-1, 1, (3, 10, 3))
    raw = 0.07 * x + np.array([0.01, -0.02, 0.03])
    turned = np.einsum("fij,fnj->fni", Rotation.from_rotvec(vectors).as_matrix(), 0.8 * raw)
    expected = 4.7 * (turned + 0.1 * moves[:, None])
    np.testing.assert_allclose(to_scene(pose, jnp.asarray(x, jnp.float32)), expected, atol=1e-6)


def test_the_inverse_of_a_similarity_is_exact():
    pose, _ = object_pose()
    x = jnp.asarray(np.random.default_rng(3).uniform(-1, 1, (3, 50, 3)), jnp.float32)
    # A translation of 0.5 scene units, rounded, over a scale of 0.26.
    np.testing.assert_allclose(to_canonical(pose, to_scene(pose, x)), x, atol=2e-6)
    place = canonical(ObjectPlacement(pose, jnp.arange(3)), to_scene(pose, x), SkinningConfig())
    np.testing.assert_allclose(place.unit, np.full(3, 4.7 * 0.8 * 0.07), rtol=1e-6)
    assert place.beyond is None


def test_normals_of_a_posed_body_are_turned_with_it(new_key):
    pose, (vectors, _) = object_pose()
    x = jax.random.normal(new_key(), (3, 8, 3))
    place = canonical(ObjectPlacement(pose, jnp.arange(3)), x, SkinningConfig())
    gradients = jax.random.normal(new_key(), (24, 3))
    got = scene_normals(gradients, place.inverse.reshape(-1, 3, 3)).reshape(3, 8, 3)
    unit = gradients / jnp.linalg.norm(gradients, axis=-1, keepdims=True)
    rotations = Rotation.from_rotvec(vectors).as_matrix()
    expected = np.einsum("fij,fnj->fni", rotations, np.asarray(unit).reshape(3, 8, 3))
    np.testing.assert_allclose(got, expected, atol=2e-6)
    assert np.all(
        np.isfinite(
            jax.grad(lambda g: jnp.sum(scene_normals(g, place.inverse[0])))(jnp.zeros((8, 3)))
        )
    )


def test_unskinned_surface_points_are_those_of_the_rest_pose():
    vertices, weights = tube()
    transforms = bend(0.6, (0.1, -0.2, 0.9))
    hand = finger(transforms[None])
    place = canonical(hand, 5.0 * hand.vertices, CLOSE)
    rest = np.asarray(place.x[0]) * (LENGTH + RADIUS) + [LENGTH, 0, 0]
    assert np.abs(rest - vertices).max() < 1e-4
    assert not np.any(place.beyond)


def test_the_skin_of_a_whole_bent_hand_is_found_again(data_root):
    model = np.load(data_root / "hand_object/hand_models/webxr_generic_right.npz")
    vertices, weights, parents = model["v_template"], model["weights"], model["parents"]
    random = np.random.default_rng(0)
    transforms = np.zeros((len(parents), 4, 4))
    for joint, (parent, place) in enumerate(zip(parents, model["J"])):
        own = np.eye(4)
        own[:3, :3] = Rotation.from_rotvec(0.15 * random.normal(size=3)).as_matrix()
        own[:3, 3] = place - own[:3, :3] @ place
        transforms[joint] = own if parent < 0 else transforms[parent] @ own
    posed = jnp.asarray(skin(vertices, weights, transforms), jnp.float32)
    softness = SkinningConfig().vertex_softness
    found, _ = vertex_weights(posed, posed, jnp.asarray(weights, jnp.float32), softness)
    rest, _ = unskin(posed, found, jnp.asarray(transforms, jnp.float32))
    error = np.linalg.norm(np.asarray(rest) - vertices, axis=-1)
    assert error.mean() < 1e-4
    assert np.percentile(error, 95) < 2e-4  # the rest is skin of fingers that touch


def test_capsules_recover_each_bone_away_from_its_joint():
    vertices, _ = tube()
    transforms = bend(0.6)
    far = np.abs(vertices[:, 0] - LENGTH) > 0.02
    stiff = np.eye(2)[(vertices[:, 0] > LENGTH).astype(int)]
    posed = skin(vertices, stiff, transforms)[far]
    weights, distance = capsule_weights(
        jnp.asarray(posed, jnp.float32), capsules(), jnp.asarray(transforms, jnp.float32), 0.002
    )
    rest, _ = unskin(jnp.asarray(posed, jnp.float32), weights, jnp.asarray(transforms, jnp.float32))
    # exp(-12 mm / 2 mm) of the other bone, which moves points by up to 4 cm sin(0.6).
    assert np.abs(np.asarray(rest) - vertices[far]).max() < np.exp(-6.0) * 0.03
    np.testing.assert_allclose(distance, np.zeros(far.sum()), atol=2e-6)


def test_capsule_distances_are_those_of_the_closed_form():
    x = jnp.array([[0.02, 0.03, 0.0], [-0.05, 0.0, 0.0], [0.1, 0.0, 0.02], [0.02, 0.0, 0.0]])
    got = capsule_distances(x, capsules())
    end = np.hypot(0.1 - 2 * LENGTH, 0.02)
    expected = [0.03, 0.05, end, 0.0]
    np.testing.assert_allclose(np.min(got, axis=-1), np.array(expected) - RADIUS, atol=2e-6)


def test_the_weights_are_soft_minima_far_from_the_origin_too(new_key):
    vertices, weights = tube()
    far = vertices + np.array([3.0, -2.0, 5.0])
    points = far[::7] + 0.003
    squares = np.sum((points[:, None] - far[None]) ** 2, axis=-1)
    near = np.exp(-(squares - squares.min(axis=1, keepdims=True)) / 0.005**2)
    expected = near @ weights / near.sum(axis=1, keepdims=True)
    arrays = [jnp.asarray(a, jnp.float32) for a in (points, far, weights)]
    got, distance = vertex_weights(arrays[0], arrays[1], arrays[2], 0.005)
    # Coordinates of 6 m are known to 5e-7 m, over distances of 5 mm in units of 5 mm.
    np.testing.assert_allclose(got, expected, atol=4 * 5e-7 / 0.005)
    np.testing.assert_allclose(distance, np.sqrt(squares.min(axis=1)), atol=2e-6)


def test_inverses_are_finite_where_opposite_rotations_cancel(new_key):
    matrices = jax.random.normal(new_key(), (10, 3, 3)) + 3 * jnp.eye(3)[None]
    np.testing.assert_allclose(inverse3(matrices), np.linalg.inv(matrices), rtol=1e-4, atol=1e-5)
    slope = jax.grad(lambda m: jnp.sum(inverse3(m)))(jnp.zeros((1, 3, 3)))
    assert np.all(np.isfinite(slope))


@pytest.mark.parametrize("kind", ["vertices", "capsules"])
def test_points_out_of_reach_are_marked_with_their_distance(kind):
    hand = finger(bend(0.0)[None])
    x = 5.0 * jnp.array([[[0.04, 0.3, 0.0], [0.04, 0.05, 0.0]]])
    place = canonical(hand, x, dataclasses.replace(CLOSE, kind=kind))
    np.testing.assert_array_equal(place.beyond, [[True, False]])
    assert place.template is not None
    np.testing.assert_allclose(place.template, [[5 * 0.29, 5 * 0.04]], atol=1e-3)


def test_poses_learn_through_the_transforms():
    hand = finger(bend(0.3)[None])
    x = 5.0 * hand.vertices[:, ::40]

    def total(transforms):
        place = canonical(hand._replace(transforms=transforms), x, SkinningConfig())
        return jnp.sum(jnp.sin(10 * place.x))

    slope = np.asarray(jax.grad(total)(hand.transforms))
    assert np.all(np.isfinite(slope))
    assert np.all(np.any(slope[0, :, :3] != 0, axis=-1))


def test_rays_look_for_nodes_where_they_are():
    hand = finger(bend(0.0)[None])
    box = ObjectPlacement(
        Similarity(jnp.ones(1), jnp.eye(3)[None], jnp.array([[2.0, 0.0, 0.0]])), jnp.zeros(1, int)
    )
    origins = jnp.array([[[0.2, 0.0, -5.0], [2.0, 0.0, -5.0]]])
    directions = jnp.broadcast_to(jnp.array([0.0, 0.0, 1.0])[None, None], (1, 2, 3))
    near, far = interval(hand, origins, directions)
    side = 5 * (RADIUS + 0.02)
    np.testing.assert_allclose(far - near, [[2 * side, 0]], atol=1e-5)
    near, far = interval(box, origins, directions)
    np.testing.assert_allclose(far - near, [[0, 2.2]], atol=1e-5)
