"""The affine color fit undoes an affine change and nothing else."""

from dataclasses import replace

import numpy as np

from splats.data.background import BLACK
from splats.evaluation import score_view
from splats.metrics.color_correction import fit_affine
from tests.splats.scenes import small_scene


def test_an_affine_change_of_color_is_undone():
    generator = np.random.default_rng(0)
    photograph = generator.uniform(0.2, 0.8, (20, 30, 3))
    rendered = photograph @ np.array([[0.8, 0.05, 0], [0, 0.9, 0.02], [0.03, 0, 0.85]]) + 0.02
    np.testing.assert_allclose(fit_affine(rendered, photograph), photograph, atol=1e-6)


def test_a_geometric_error_is_not_undone():
    photograph = np.random.default_rng(1).uniform(0.2, 0.8, (20, 30, 3))
    shifted = np.roll(photograph, 5, axis=1)
    assert np.mean((fit_affine(shifted, photograph) - photograph) ** 2) > 0.01


def test_pixels_that_do_not_count_have_no_say_in_the_fit():
    generator = np.random.default_rng(2)
    photograph = generator.uniform(0.2, 0.8, (20, 30, 3))
    rendered = 0.9 * photograph + 0.03
    valid = np.ones((20, 30), bool)
    valid[:, 20:] = False
    rendered[:, 20:] = generator.uniform(0.2, 0.8, (20, 10, 3))
    fitted = fit_affine(rendered, photograph, valid)
    np.testing.assert_allclose(fitted[valid], photograph[valid], atol=1e-6)
    assert np.abs(fit_affine(rendered, photograph) - photograph)[valid].max() > 0.01


def test_the_corrected_score_is_of_the_pixels_that_count():
    valid = np.ones(small_scene().images.shape[:3], bool)
    valid[:, :10] = False
    scene = replace(small_scene(), valid=valid)

    def render_view(view):
        image = 0.9 * scene.view_on(view, BLACK) + 0.03
        image[:10] = 0.5 + 0.2 * np.random.default_rng(view).normal(size=(10, 48, 3))
        return image.astype(np.float32)

    for view in (0, 3):
        scores = score_view(scene, view, render_view(view), corrected=True)
        assert scores["corrected_psnr"] > 60 > 40 > scores["psnr"]
        assert scores["pixels"] == valid[view].sum()


def test_an_image_without_usable_pixels_is_returned_as_it_is():
    white = np.ones((8, 8, 3))
    np.testing.assert_array_equal(fit_affine(white, white * 0.5), white)
