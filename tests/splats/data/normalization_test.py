"""World normalization and the start of the Gaussians, by their defining properties."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from splats.data.normalization import (
    camera_centers,
    normalize_world,
    rotation_between,
    scene_scale,
    similarity_from_cameras,
    similarity_scale,
    transform_cameras,
    transform_points,
)
from splats.data.starting_geometry import neighbor_distances, random_blender_points, random_points
from splats.video.camera_path import orbit


def _scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A ring of cameras over a flat cloud, in an arbitrarily turned, scaled and moved world."""
    rng = np.random.default_rng(seed)
    poses = orbit(12, center=(1, 2, 0), radius=4, elevation=30)
    points = rng.normal(size=(500, 3)) * [3, 1, 0.2] + [1, 2, 0]
    move = np.eye(4)
    move[:3, :3] = 5 * Rotation.random(random_state=seed).as_matrix()
    move[:3, 3] = rng.normal(size=3) * 10
    return transform_cameras(move, poses), transform_points(move, points)


@pytest.mark.parametrize("seed", range(5))
def test_normalized_worlds_have_unit_distance_axes_and_handedness(seed):
    poses, points = _scene(seed)
    similarity = normalize_world(poses, points)
    scale = similarity_scale(similarity)
    rotation = similarity[:3, :3] / scale
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) > 0
    moved = transform_points(similarity, points)
    covariance = np.cov(moved.T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-9)
    assert (np.diff(np.diag(covariance)) <= 0).all()
    np.testing.assert_allclose(np.median(moved @ np.eye(3), axis=0), 0, atol=0.2)
    assert np.median(moved[:, 2]) <= np.mean(moved[:, 2])


@pytest.mark.parametrize("seed", range(5))
def test_cameras_alone_define_up_focus_and_scale(seed):
    turn = np.eye(4)
    turn[:3, :3] = 5 * Rotation.random(random_state=seed).as_matrix()
    poses = transform_cameras(turn, orbit(12, radius=4, elevation=30))
    moved = transform_cameras(similarity_from_cameras(poses), poses)
    assert (moved[:, :3, :3] @ moved[:, :3, :3].transpose(0, 2, 1) - np.eye(3)).max() < 1e-9
    up = -moved[:, 1, :3].mean(axis=0)
    np.testing.assert_allclose(up / np.linalg.norm(up), [0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(np.median(np.linalg.norm(camera_centers(moved), axis=1)), 1)
    forward = moved[:, 2, :3]
    toward = -np.sum(forward * camera_centers(moved), axis=1)
    np.testing.assert_allclose(toward, 1, atol=1e-9)


def test_normalization_does_not_depend_on_the_world_it_starts_in():
    """Pixels aside, two turned copies of one scene end in the same place, up to axis signs."""
    first, second = (_scene(seed) for seed in (0, 1))
    moved = [transform_points(normalize_world(*scene), scene[1]) for scene in (first, second)]
    spread = [np.sort(cloud.std(axis=0)) for cloud in moved]
    np.testing.assert_allclose(spread[0], spread[1], rtol=0.1)


@pytest.mark.parametrize("cosine", [1.0, 0.3, -1.0])
def test_rotation_between_handles_every_angle(cosine):
    source = np.array([0, 0.6, 0.8])
    other = np.array([1.0, 0, 0])
    target = cosine * source + np.sqrt(1 - cosine**2) * other
    rotation = rotation_between(source, target)
    np.testing.assert_allclose(rotation @ source, target, atol=1e-9)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)


def test_degenerate_camera_sets_stay_finite():
    one = orbit(1)
    for poses in (one, np.repeat(one, 3, axis=0)):
        assert np.isfinite(normalize_world(poses, np.zeros((0, 3)))).all()
        assert np.isfinite(normalize_world(poses, np.zeros((9, 3)))).all()
        assert scene_scale(poses) == 1.0


def test_scene_scale_is_the_largest_distance_from_the_mean_camera():
    assert np.isclose(scene_scale(orbit(8, radius=2.0, elevation=0)), 2.2)
    line = np.tile(np.eye(4), (3, 1, 1))
    line[:, 0, 3] = -np.array([0.0, 1.0, 5.0])  # centers on x, their mean at 2
    assert np.isclose(scene_scale(line), 1.1 * 3.0)


def test_neighbor_distances_equal_brute_force():
    points = np.random.default_rng(0).normal(size=(200, 3))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    nearest = np.sort(distances, axis=1)[:, 1:4]
    expected = np.sqrt((nearest**2).mean(axis=1))
    np.testing.assert_allclose(neighbor_distances(points), expected, rtol=1e-6)


def test_neighbor_distances_of_duplicates_and_few_points_are_positive():
    same = neighbor_distances(np.zeros((5, 3)))
    np.testing.assert_allclose(same, np.sqrt(1e-7))
    assert neighbor_distances(np.zeros((1, 3))).tolist() == [1.0]
    assert neighbor_distances(np.array([[0.0, 0, 0], [2.0, 0, 0]])).tolist() == [2.0, 2.0]
    assert neighbor_distances(np.zeros((0, 3))).shape == (0,)


def test_random_points_fill_their_cubes():
    generator = np.random.default_rng(0)
    points, colors = random_points(4000, 2.0, generator)
    assert 5.9 < np.abs(points).max() <= 6 and colors.dtype == np.uint8
    move = np.diag([0.5, 0.5, 0.5, 1.0])
    points, _ = random_blender_points(4000, move, generator)
    assert 0.64 < np.abs(points).max() <= 0.65


def test_a_georeferenced_world_gives_the_same_scene_as_a_local_one():
    poses, points = _scene(3)
    move = np.eye(4)
    move[:3, 3] = [4e6, 3e5, 5e6]
    far = transform_cameras(move, poses), transform_points(move, points)
    similarity, local = normalize_world(*far), normalize_world(poses, points)
    np.testing.assert_allclose(
        transform_points(similarity, far[1]), transform_points(local, points), atol=0.3
    )
    distance = camera_centers(transform_cameras(similarity, far[0]))
    assert 0.3 < np.median(np.linalg.norm(distance, axis=1)) < 3
