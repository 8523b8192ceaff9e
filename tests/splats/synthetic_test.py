"""The synthetic scene: what is drawn is what the geometry says."""

from __future__ import annotations

import numpy as np
import pytest

from splats.data.camera_models import Camera
from splats.data.colmap import read_model
from splats.synthetic import (
    BOX_HIGH,
    BOX_LOW,
    SPHERE_CENTER,
    SPHERE_RADIUS,
    SyntheticConfig,
    cast,
    render_view,
    sample_surfaces,
    synthetic_cameras,
    write_scene,
)
from training.errors import ConfigError


def test_a_ray_at_the_sphere_center_sees_the_sphere_and_one_at_the_sky_sees_black():
    eye = np.array([-3.0, 0.35, 0.6])
    forward = SPHERE_CENTER - eye
    rays = np.stack([forward / np.linalg.norm(forward), [0, 0, 1.0], [-1.0, 0, 0.01]])
    color = cast(eye, rays)
    assert color[0].min() > 0 and (color[1:] == 0).all()


def test_sampled_points_lie_on_the_surfaces():
    points, colors = sample_surfaces(1000, np.random.default_rng(0))
    ground, sphere, box = points[:500], points[500:800], points[800:]
    assert (ground[:, 2] == 0).all() and np.ptp(ground[:, 0]) > 5
    distance = np.linalg.norm(sphere - SPHERE_CENTER, axis=1)
    np.testing.assert_allclose(distance, SPHERE_RADIUS)
    to_side = np.minimum(np.abs(box - BOX_LOW), np.abs(box - BOX_HIGH)).min(axis=1)
    np.testing.assert_allclose(to_side, 0, atol=1e-12)
    assert colors.std(axis=0).min() > 15


def test_more_samples_converge_to_the_area_average():
    poses, _ = synthetic_cameras(SyntheticConfig(views=3))
    camera = Camera("PINHOLE", 20, 15, (19.0, 19.0, 10.0, 7.5))
    images = {n: render_view(poses[1], camera, n).astype(float) for n in (1, 2, 6)}
    errors = [np.abs(images[n] - images[6]).mean() for n in (1, 2)]
    assert errors[1] < 0.7 * errors[0]


def test_scenes_are_reproducible_and_of_the_asked_size(tmp_path):
    config = SyntheticConfig(views=4, width=16, height=12, points=50, samples=1)
    for name in ("a", "b"):
        write_scene(tmp_path / name, config, binary=name == "a")
    first, second = (read_model(tmp_path / name / "sparse" / "0") for name in ("a", "b"))
    assert len(first.images) == 4 and len(first.points.ids) == 50
    np.testing.assert_array_equal(first.points.positions, second.points.positions)
    for number in range(1, 5):
        name = f"images/{number:04d}.png"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_every_view_sees_mostly_the_scene(tmp_path):
    config = SyntheticConfig(views=9, samples=1)
    poses, camera = synthetic_cameras(config)
    for pose in poses:
        image = render_view(pose, camera, 1)
        assert (image.max(axis=2) > 0).mean() > 0.6 and image.std() > 25


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigError):
        SyntheticConfig(views=0)
