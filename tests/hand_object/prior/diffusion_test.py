"""Noise goes in and comes out; standardized grids come back."""

from __future__ import annotations

import jax
import numpy as np

from hand_object.prior.diffusion import as_noise, noisy_grids, restored, standardized, step_weight
from hand_object.prior.schedule import signal_shares

STEPS = np.array([20, 600])
noisy_grids, standardized, restored = map(jax.jit, (noisy_grids, standardized, restored))
as_noise = jax.jit(as_noise, static_argnums=3)


def test_a_right_guess_of_the_clean_grid_is_the_noise(new_key):
    clean, noise = jax.random.normal(new_key(), (2, 2, 3, 2, 2, 4))
    noisy = noisy_grids(clean, noise, STEPS)
    shares = signal_shares()[np.asarray(STEPS)].reshape(2, 1, 1, 1, 1)
    wanted = np.sqrt(shares) * np.asarray(clean) + np.sqrt(1 - shares) * np.asarray(noise)
    np.testing.assert_allclose(noisy, wanted, rtol=1e-5, atol=1e-6)
    # At step 20 rounding is magnified by 1 / sqrt(1 - a), which is 5.
    np.testing.assert_allclose(as_noise(clean, noisy, STEPS, "clean"), noise, atol=1e-5)
    np.testing.assert_array_equal(as_noise(noise, noisy, STEPS, "noise"), noise)


def test_weight_of_a_step_is_its_signal_to_noise_with_a_limit():
    found = np.asarray(step_weight(STEPS, "clean")).ravel()
    share = signal_shares()[600]
    np.testing.assert_allclose(found, [5.0, share / (1 - share)], rtol=1e-4)
    np.testing.assert_array_equal(step_weight(STEPS, "noise"), 1.0)


def test_standardized_grids_have_no_mean_and_a_deviation_of_one_and_come_back(new_key):
    grids = 0.9 + 0.05 * jax.random.normal(new_key(), (50, 2, 2, 3, 4))
    grids = np.asarray(grids)
    mean = grids.mean(axis=0)
    spread = np.sqrt(np.square(grids - mean).mean(axis=(0, 1, 2, 3)))
    statistics = {"mean": mean, "deviation": spread}
    values = standardized(grids, statistics)
    np.testing.assert_allclose(np.mean(values, axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(np.std(values, axis=(0, 1, 2, 3)), 1.0, rtol=1e-4)
    np.testing.assert_allclose(restored(values, statistics), grids, rtol=1e-6)
    one = standardized(grids[0], statistics)
    np.testing.assert_allclose(one, values[0], rtol=1e-6)
    np.testing.assert_allclose(restored(one, statistics), grids[0], rtol=1e-6)
