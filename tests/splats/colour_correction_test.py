"""The affine colour fit undoes an affine change and nothing else."""

import numpy as np

from splats.colour_correction import fit_affine


def test_an_affine_change_of_colour_is_undone():
    generator = np.random.default_rng(0)
    photograph = generator.uniform(0.2, 0.8, (20, 30, 3))
    rendered = photograph @ np.array([[0.8, 0.05, 0], [0, 0.9, 0.02], [0.03, 0, 0.85]]) + 0.02
    np.testing.assert_allclose(fit_affine(rendered, photograph), photograph, atol=1e-6)


def test_a_geometric_error_is_not_undone():
    photograph = np.random.default_rng(1).uniform(0.2, 0.8, (20, 30, 3))
    shifted = np.roll(photograph, 5, axis=1)
    assert np.mean((fit_affine(shifted, photograph) - photograph) ** 2) > 0.01


def test_an_image_without_usable_pixels_is_returned_as_it_is():
    white = np.ones((8, 8, 3))
    np.testing.assert_array_equal(fit_affine(white, white * 0.5), white)
