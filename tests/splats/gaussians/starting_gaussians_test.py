"""The Gaussians at the start, against distances computed by brute force."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from splats.config import ModelConfig
from splats.gaussians.sizes import initial_capacity
from splats.gaussians.starting_gaussians import initial_gaussians, starting_points
from tests.splats.scenes import POINTS, small_scene
from training.errors import ConfigError


def test_points_become_round_gaussians_of_their_color_and_neighbor_distance(new_key):
    scene, config = small_scene(), ModelConfig(init_scale=0.5, init_opacity=0.3)
    points = starting_points(scene, config, 1.0, 0)
    gaussians, alive = initial_gaussians(points, 300, config, new_key())
    assert int(alive.sum()) == POINTS and not alive[POINTS:].any()
    distance = np.linalg.norm(scene.points[:, None] - scene.points[None], axis=-1)
    nearest = np.sort(distance, axis=1)[:, 1:4]
    expected = 0.5 * np.sqrt(np.maximum((nearest**2).mean(axis=1), 1e-7))
    np.testing.assert_allclose(
        np.exp(gaussians["scales"][:POINTS]), np.repeat(expected[:, None], 3, 1), rtol=1e-4
    )
    color = 0.28209479177387814 * gaussians["sh0"][:POINTS, 0] + 0.5
    np.testing.assert_allclose(color, scene.point_colors / 255.0, atol=1e-6)
    np.testing.assert_allclose(jax.nn.sigmoid(gaussians["opacities"][:POINTS]), 0.3, rtol=1e-5)
    assert gaussians["shN"].shape == (300, 15, 3) and not gaussians["shN"].any()
    assert all(bool(np.isfinite(leaf).all()) for leaf in gaussians.values())
    assert np.linalg.norm(gaussians["quats"], axis=1).min() > 0


def test_degree_zero_has_no_higher_harmonics(new_key):
    config = ModelConfig(sh_degree=0)
    points = starting_points(small_scene(), config, 1.0, 0)
    assert "shN" not in initial_gaussians(points, 256, config, new_key())[0]


def test_capacity_doubles_until_a_third_is_free_and_stops_at_the_cap():
    config = ModelConfig(initial_capacity=1000, cap_max=10_000)
    assert initial_capacity(600, config, False) == 1000
    assert initial_capacity(700, config, False) == 2000
    assert initial_capacity(9000, config, False) == 10_000
    assert initial_capacity(5, config, True) == 10_000


def test_random_points_fill_the_cube_around_the_cameras():
    config = ModelConfig(initialization="random", random_points=5000)
    points = starting_points(small_scene(), config, 2.0, 0)
    assert points.positions.shape == (5000, 3)
    assert 5.9 < np.abs(points.positions).max() <= 6.0


def test_a_scene_without_points_says_what_to_set():
    scene = replace(small_scene(), points=np.zeros((0, 3), np.float32))
    with pytest.raises(ConfigError, match="initialization = random"):
        starting_points(scene, ModelConfig(), 1.0, 0)
