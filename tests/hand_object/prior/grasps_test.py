"""Grasps by rule: they hold without piercing, and are the same on every machine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hand_object.data.solids import solid
from hand_object.prior.config import Config, GraspsConfig
from hand_object.prior.grasps import default_hand, grasp
from hand_object.prior.grid import UNIT
from hand_object.prior.solids import FAMILIES, Sampled, read_meshes
from hand_object.prior.source import evaluation_grasps, seen_families, training_grasps
from training.errors import InputError

CONFIG = Config(system="hand_object.prior", grasps=GraspsConfig(evaluated=4))


@pytest.fixture(scope="module")
def hand():
    return default_hand()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_distances_of_a_family_are_distances(family):
    """Their gradient is at most 1 long, and the object is where they are negative."""
    random = np.random.default_rng(5)
    shape = FAMILIES[family](random)
    points = random.uniform(-0.15, 0.15, (4000, 3))
    step = random.normal(size=points.shape)
    step *= 1e-5 / np.linalg.norm(step, axis=-1, keepdims=True)
    change = np.abs(shape(points + step) - shape(points))
    assert change.max() <= 1e-5 * (1 + 1e-6)
    assert shape(np.zeros((1, 3)))[0] < -0.01
    assert (shape(0.15 * step / 1e-5) > 0).all()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_hand_is_around_the_object_and_not_in_it(hand, family):
    """Joints are bones: skin is 9 mm farther out. The rule looks at some places of a bone."""
    near, least = [], []
    for number in range(10):
        random = np.random.default_rng([number, 3])
        held = grasp(hand, FAMILIES[family](random), random)
        gaps = held.distance(held.joints) * UNIT
        least.append(gaps.min())
        near.append(sum(gaps[1 + 4 * finger : 5 + 4 * finger].min() < 0.02 for finger in range(5)))
    assert np.median(least) > 0.0
    assert np.mean(near) >= 3  # fingers that touch


def test_training_grasp_follows_from_seed_and_position_alone():
    first, again = training_grasps(CONFIG), training_grasps(CONFIG)
    one, other = first.load(3, 77), again.load(5000, 77)
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])
    moved = first.load(3, 78)
    seeded = training_grasps(replace(CONFIG, seed=1)).load(3, 77)
    for different in (moved, seeded):
        assert not np.array_equal(one["distances"], different["distances"])


def test_held_out_family_is_never_learned_and_streams_differ():
    evaluated = evaluation_grasps(CONFIG)
    assert CONFIG.grasps.held_out not in seen_families(CONFIG)
    assert evaluated["held_out_family"].families == (CONFIG.grasps.held_out,)
    train = training_grasps(CONFIG)
    assert CONFIG.grasps.held_out not in train.categories
    assert not np.array_equal(evaluated["seen_families"][0]["joints"], train.load(0, 0)["joints"])
    assert train.identity(0) != evaluated["seen_families"].identity(0)


def test_a_sampled_mesh_has_the_distances_of_the_solid():
    """A box; samples are 7 mm apart at most, between which distances are straight."""
    half = np.array([0.03, 0.07, 0.02])
    shape = Sampled(*solid("box"))
    points = np.random.default_rng(0).uniform(-0.12, 0.12, (2000, 3))
    over = np.abs(points) - half
    exact = np.linalg.norm(np.maximum(over, 0), axis=-1) + np.minimum(over.max(axis=-1), 0)
    close = np.abs(exact) < 0.02
    assert np.abs(shape(points) - exact)[close].max() < 0.004


@pytest.mark.slow
def test_meshes_are_named_without_their_numbers(data_root):
    assert {"mug", "power drill"} <= set(read_meshes(data_root / "hand_object" / "ycb_meshes"))


def test_folder_without_meshes_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no .obj file"):
        read_meshes(tmp_path)
