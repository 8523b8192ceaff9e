"""Cleaning and moving clouds; rotation of spherical harmonics against direct evaluation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y

from splats.data.normalization import transform_points
from splats.export import write_file
from splats.formats import clean, transform
from splats.formats.cloud import half_turn, logits, opacities
from splats.formats.harmonics import basis, rotation_of_coefficients
from tests.splats.formats.clouds import covariances, differences, random_cloud
from training.errors import InputError


def _directions(count: int = 40) -> np.ndarray:
    values = np.random.default_rng(5).normal(size=(count, 3))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def _similarity(seed: int, scale: float) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3] = scale * Rotation.random(random_state=seed).as_matrix()
    result[:3, 3] = [1, -2, 0.5]
    return result


def test_basis_equals_scipys_spherical_harmonics_up_to_sign():
    directions = _directions()
    x, y, z = directions.T
    polar, azimuth = np.arccos(z), np.arctan2(y, x)
    column = 0
    for degree in range(4):
        for order in range(-degree, degree + 1):
            value = sph_harm_y(degree, abs(order), polar, azimuth)
            real = value.imag if order < 0 else value.real
            real = real * (np.sqrt(2) if order else 1)
            ours = basis(directions)[:, column]
            # scipy's phase carries (-1)^order already.
            np.testing.assert_allclose(ours, real, atol=1e-10)
            column += 1


@pytest.mark.parametrize("seed", range(5))
def test_turned_coefficients_equal_evaluating_in_turned_directions(seed):
    rotation = Rotation.random(random_state=seed).as_matrix()
    coefficients = np.random.default_rng(seed).normal(size=16)
    directions = _directions()
    before = basis(directions) @ coefficients
    after = basis(directions @ rotation.T) @ (rotation_of_coefficients(rotation) @ coefficients)
    np.testing.assert_allclose(after, before, atol=1e-12)


def test_coefficient_rotations_compose_and_are_orthogonal():
    first, second = (Rotation.random(random_state=seed).as_matrix() for seed in (1, 2))
    product = rotation_of_coefficients(first) @ rotation_of_coefficients(second)
    np.testing.assert_allclose(rotation_of_coefficients(first @ second), product, atol=1e-12)
    np.testing.assert_allclose(product @ product.T, np.eye(16), atol=1e-12)


@pytest.mark.parametrize("degree", range(4))
def test_moving_a_cloud_moves_geometry_and_view_dependent_color(degree):
    cloud, similarity = random_cloud(50, degree), _similarity(3, 2.5)
    moved = transform(cloud, similarity)
    rotation = similarity[:3, :3] / 2.5
    np.testing.assert_allclose(moved.means, transform_points(similarity, cloud.means), atol=1e-5)
    expected = 2.5**2 * rotation @ covariances(cloud) @ rotation.T
    np.testing.assert_allclose(covariances(moved), expected, rtol=2e-4, atol=1e-7)
    directions = _directions()
    count = cloud.harmonics.shape[1]
    seen = np.einsum("dk,nkc->dnc", basis(directions)[:, :count], cloud.harmonics)
    turned = basis(directions @ rotation.T)[:, :count]
    np.testing.assert_allclose(np.einsum("dk,nkc->dnc", turned, moved.harmonics), seen, atol=1e-5)


def test_moving_there_and_back_returns_the_cloud():
    cloud, similarity = random_cloud(), _similarity(4, 0.2)
    back = transform(transform(cloud, similarity), np.linalg.inv(similarity))
    assert max(differences(cloud, back).values()) < 2e-5


@pytest.mark.parametrize("axis", range(3))
def test_half_turns_equal_the_general_transform_and_are_exact(axis):
    cloud = random_cloud()
    similarity = -np.eye(4)
    similarity[axis, axis] = similarity[3, 3] = 1
    turned, general = half_turn(cloud, axis), transform(cloud, similarity)
    np.testing.assert_allclose(turned.means, general.means, atol=1e-6)
    np.testing.assert_allclose(turned.harmonics, general.harmonics, atol=1e-6)
    np.testing.assert_allclose(covariances(turned), covariances(general), rtol=1e-4, atol=1e-9)
    assert max(differences(half_turn(turned, axis), cloud).values()) == 0


def test_dead_and_broken_rows_are_dropped_and_counted():
    cloud = random_cloud(10)
    alive = np.ones(10, bool)
    alive[[2, 3]] = False
    for name, row in (("means", 0), ("log_scales", 4), ("harmonics", 5), ("opacity_logits", 3)):
        array = getattr(cloud, name).copy()
        array[row] = np.nan if row % 2 == 0 else np.inf
        cloud = replace(cloud, **{name: array})
    quaternions = cloud.quaternions.copy()
    quaternions[7] = 0
    cleaned = clean(replace(cloud, quaternions=quaternions), alive)
    assert (len(cleaned.cloud), cleaned.dead, cleaned.non_finite) == (4, 2, 4)
    np.testing.assert_array_equal(cleaned.cloud.means, cloud.means[[1, 6, 8, 9]])


def test_values_whose_powers_overflow_count_as_not_finite():
    cloud = random_cloud(4)
    sizes, means = cloud.log_scales.copy(), cloud.means.copy()
    sizes[1, 2], means[2, 0] = 90.0, 1e30
    cleaned = clean(replace(cloud, log_scales=sizes, means=means))
    assert (len(cleaned.cloud), cleaned.non_finite) == (2, 2)


def test_logits_invert_opacities_and_stay_finite_at_the_ends():
    values = np.linspace(-6, 6, 50)
    np.testing.assert_allclose(logits(opacities(values)), values, atol=1e-9)
    assert np.isfinite(logits(np.array([0.0, 1.0]))).all()
    assert opacities(np.array([-1e4, 1e4])).tolist() == [0, 1]


def test_shapes_are_checked():
    cloud = random_cloud(5)
    with pytest.raises(InputError, match="quaternions"):
        replace(cloud, quaternions=np.zeros((5, 3), np.float32))
    with pytest.raises(InputError, match="harmonics"):
        replace(cloud, harmonics=np.zeros((5, 7, 3), np.float32))


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "a.ply").mkdir()
    with pytest.raises(InputError, match=r"a\.ply cannot be written"):
        write_file(tmp_path / "a.ply", random_cloud(3), "ply")
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]
