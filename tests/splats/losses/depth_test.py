"""Depth supervision on a plane of known depth, and the observations of a COLMAP model."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from splats.config import SceneConfig
from splats.data.camera_models import Camera as FileCamera
from splats.data.colmap import write_model
from splats.data.colmap_model import ColmapImage, ColmapModel, ColmapPoints
from splats.losses import depth
from splats.render.camera import Camera
from tests.splats.scenes import small_scene
from training.errors import ConfigError


def camera():
    return Camera(jnp.eye(4), *(jnp.float32(v) for v in (50.0, 50.0, 20.0, 15.0)))


def test_error_is_the_disparity_distance_at_points_inside_the_image():
    rendered = jnp.full((30, 40), 4.0)
    points = jnp.array(
        [[0.0, 0.0, 2.0], [0.5, 0.2, 4.0], [9.0, 0.0, 1.0], [0.0, 0.0, -1.0], [0.1, 0.1, 5.0]]
    )
    present = jnp.array([True, True, True, True, False])
    total, count = depth.disparity_error(rendered, camera(), points, present)
    assert float(count) == 2.0
    assert float(total) == pytest.approx(abs(1 / 4 - 1 / 2) + 0.0, abs=1e-6)


def test_pixels_without_depth_count_as_infinitely_far():
    points = jnp.array([[0.0, 0.0, 2.0]])
    total, _ = depth.disparity_error(jnp.zeros((30, 40)), camera(), points, jnp.array([True]))
    assert float(total) == pytest.approx(0.5)


def test_each_view_gets_the_points_that_it_observed(tmp_path):
    positions = np.arange(12.0).reshape(4, 3)
    points = ColmapPoints.without_tracks(positions, np.zeros((4, 3), np.uint8))
    keypoints = np.zeros((3, 2))
    images = {
        1: ColmapImage(
            "a.png", 1, np.array([1.0, 0, 0, 0]), np.zeros(3), keypoints, np.array([1, -1, 3])
        ),
        2: ColmapImage(
            "b.png", 1, np.array([1.0, 0, 0, 0]), np.zeros(3), keypoints, np.array([2, 4, 3])
        ),
    }
    pinhole = FileCamera("PINHOLE", 40, 30, (50.0, 50.0, 20.0, 15.0))
    write_model(tmp_path / "sparse" / "0", ColmapModel({1: pinhole}, images, points), binary=True)
    similarity = np.diag([2.0, 2.0, 2.0, 1.0])
    found, present = depth.observed_points(tmp_path, ("b.png", "a.png"), similarity)
    assert present.tolist() == [[True, True, True], [True, True, False]]
    np.testing.assert_allclose(found[0], 2 * positions[[1, 2, 3]])
    np.testing.assert_allclose(found[1, :2], 2 * positions[[0, 2]])
    # The same model as that of the cameras, where another one was chosen.
    points = replace(points, positions=positions + 1)
    write_model(tmp_path / "sparse" / "1", ColmapModel({1: pinhole}, images, points), binary=True)
    moved, _ = depth.observed_points(tmp_path, ("b.png", "a.png"), similarity, "sparse/1")
    np.testing.assert_allclose(moved[0], 2 * (positions[[1, 2, 3]] + 1))


def test_points_that_are_not_finite_supervise_nothing(tmp_path):
    positions = np.array([[0.0, 0, 2], [np.nan, 0, 0], [1e300, 0, 0]])
    points = ColmapPoints.without_tracks(positions, np.zeros((3, 3), np.uint8))
    image = ColmapImage(
        "a.png", 1, np.array([1.0, 0, 0, 0]), np.zeros(3), np.zeros((3, 2)), np.arange(1, 4)
    )
    pinhole = FileCamera("PINHOLE", 40, 30, (50.0, 50.0, 20.0, 15.0))
    write_model(tmp_path / "sparse" / "0", ColmapModel({1: pinhole}, {1: image}, points))
    found, present = depth.observed_points(tmp_path, ("a.png",), np.eye(4))
    assert present.tolist() == [[True]]
    np.testing.assert_array_equal(found, [[[0, 0, 2]]])


@pytest.mark.parametrize(("kind", "path"), [("nerfstudio", "scene"), ("colmap", "synthetic")])
def test_only_the_scene_of_a_colmap_model_is_supervised(kind, path):
    """A nerfstudio scene may lie in a folder with a COLMAP model of another world."""
    scene = replace(small_scene(), kind=kind)
    with pytest.raises(ConfigError, match=r"losses\.depth needs a COLMAP model"):
        depth.supervising_points(scene, SceneConfig(path=path))


def test_a_model_without_observations_is_refused(tmp_path):
    from splats.synthetic import SyntheticConfig, write_scene

    folder = write_scene(tmp_path, SyntheticConfig(4, 24, 16, 20, samples=1))
    with pytest.raises(ConfigError, match=r"losses\.depth"):
        depth.observed_points(folder, ("0001.png",), np.eye(4))
