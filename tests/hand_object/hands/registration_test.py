"""Meshes of a hand become poses of its model, or the distance that is left is said."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from hand_object.hands.registration import register
from hand_object.hands.skinning import pose_hand
from hand_object.hands.sources import load_hand
from training.errors import InputError

pytestmark = pytest.mark.usefixtures("quick_compilation")
FRAMES = 3
_pose = jax.jit(pose_hand)


@pytest.fixture(scope="module")
def posed():
    """A model with shape numbers, and what it was posed by."""
    model, draw = load_hand("parametric"), np.random.default_rng(0)
    pose = draw.normal(0, 0.4, (FRAMES, 16, 3)).astype(np.float32)
    pose[:, 0] = draw.normal(0, 1.5, (FRAMES, 3))
    shift = draw.normal(0, 1, (FRAMES, 3)).astype(np.float32)
    shape = draw.uniform(-1, 1, model.shape_size).astype(np.float32)
    return model, pose, shift, shape, np.asarray(_pose(model, pose, shift, shape).vertices)


def test_poses_and_shape_come_back(posed):
    model, _, shift, shape, vertices = posed
    found = register(model, vertices)
    # float32 rounds meters to 1e-7; a shape number moves vertices by about a millimeter.
    assert found.errors.max() < 1e-6
    np.testing.assert_allclose(found.shape, shape, atol=1e-3)
    np.testing.assert_allclose(found.translation, shift, atol=1e-5)
    again = np.asarray(_pose(model, found.pose, found.translation, found.shape).vertices)
    np.testing.assert_allclose(again, vertices, atol=1e-5)


def test_noise_is_what_is_left(posed):
    """Errors of a least-squares fit are those of the noise, less what few unknowns take."""
    model, *_, vertices = posed
    noise = np.random.default_rng(1).normal(0, 1e-3, vertices.shape)
    wanted = np.linalg.norm(noise, axis=-1).mean()
    errors = register(model, vertices + noise).errors
    assert (errors < wanted * 1.02).all() and (errors > wanted * 0.9).all()


def test_vertices_in_another_order_are_far(posed):
    model, *_, vertices = posed
    assert register(model, vertices[:, ::-1]).errors.min() > 0.005


def test_another_topology_is_named(posed):
    model, *_, vertices = posed
    mano = np.zeros((FRAMES, 778, 3))
    for meshes, sentence in ((vertices[:, :-1], "hand model parametric has"), (mano, "MANO .pkl")):
        with pytest.raises(InputError, match=sentence):
            register(model, meshes)
