"""Transparent photographs before any background, through every way that pixels take."""

from __future__ import annotations

import numpy as np
import pytest

from splats.config import SceneConfig
from splats.data import load_scene
from splats.data.background import BLACK, WHITE, background_color
from tests.splats.transparent import COLOR, coverage, write_transparent_scene
from training.errors import ConfigError

STEP = 1 / 255


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_transparent_scene(tmp_path_factory.mktemp("transparent"))


def exact(background, width=32):
    """The photograph as it is before a color, float64."""
    alpha = coverage(width)[..., None]
    return alpha * np.array(COLOR) / 255 + (1 - alpha) * np.asarray(background)


@pytest.mark.parametrize("background", [BLACK, WHITE, (0.2, 0.4, 0.6)])
def test_a_transparent_photograph_lies_before_the_background(folder, background):
    scene = load_scene(folder)
    # Color and opacity are rounded to 8 bits once each.
    np.testing.assert_allclose(scene.view_on(3, background), exact(background), atol=1.01 * STEP)


def test_colors_of_transparent_pixels_do_not_leak_when_images_shrink(folder):
    scene = load_scene(folder, factor=4)
    blocks = exact(WHITE).reshape(8, 4, 8, 4, 3).mean(axis=(1, 3))
    corner = scene.view_on(0, WHITE)[:2, :2]
    np.testing.assert_allclose(corner, blocks[:2, :2], atol=1.01 * STEP)
    # Lanczos is no mean over blocks, but magenta would put red above green and blue.
    assert (np.diff(scene.view_on(0, WHITE), axis=2) < 2 * STEP).all()


def test_a_cache_keeps_color_opacity_and_mask(folder, tmp_path):
    plain = load_scene(folder)
    for _ in range(2):
        cached = load_scene(folder, cache=tmp_path)
        assert cached.fingerprint == plain.fingerprint
        np.testing.assert_array_equal(cached.images, plain.images)
        np.testing.assert_array_equal(cached.alpha, plain.alpha)


def test_opacities_are_part_of_the_fingerprint_and_absent_from_opaque_scenes(folder, scene_folder):
    assert load_scene(folder).fingerprint != load_scene(folder, alpha="mask").fingerprint
    assert load_scene(scene_folder, alpha="background").alpha is None


def test_only_blender_scenes_are_white_behind_unless_told(folder):
    assert background_color("auto", "blender") == WHITE
    assert background_color("auto", "colmap") == background_color("auto", "nerfstudio") == BLACK
    assert background_color("black", "blender") == BLACK
    assert background_color("#3366ff", "blender") == (0.2, 0.4, 1.0)


@pytest.mark.parametrize("text", ["whit", "#fff", "3366ff", "#3366fg", "random", ""])
def test_what_is_no_color_is_refused_with_the_config(text):
    with pytest.raises(ConfigError, match="give auto, black, white or #rrggbb"):
        SceneConfig(background=text)
