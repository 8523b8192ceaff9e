"""The schedule is that of latent diffusion, and respacing keeps the original numbers."""

from __future__ import annotations

import numpy as np

from hand_object.prior.schedule import STEPS, betas, respaced, signal_shares


def test_betas_are_those_of_latent_diffusion():
    found = betas()
    assert found.shape == (1000,)
    np.testing.assert_allclose(found[[0, 999]], [0.0015, 0.0195], rtol=1e-12)
    # Half way between the roots, not between the numbers (which would be 0.0105).
    middle = (np.sqrt(0.0015) + (np.sqrt(0.0195) - np.sqrt(0.0015)) * 500 / 999) ** 2
    np.testing.assert_allclose(found[500], middle, rtol=1e-12)
    assert found[500] < 0.0085


def test_signal_is_the_product_of_what_each_step_leaves():
    shares, product = signal_shares(), 1.0
    for step, beta in enumerate(betas()):
        product *= 1.0 - beta
        np.testing.assert_allclose(shares[step], product, rtol=1e-12)
    assert shares[-1] < 0.005  # almost nothing is left


def test_respaced_steps_have_the_original_number_and_its_signal():
    spaced = respaced(50)
    wanted = [round(i * 999 / 49) for i in range(50)]
    assert spaced.steps.tolist() == wanted
    assert spaced.steps[-1] == STEPS - 1
    np.testing.assert_allclose(spaced.signal, signal_shares()[wanted], rtol=1e-6)
