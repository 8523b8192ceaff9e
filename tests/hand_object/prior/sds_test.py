"""Score distillation against float64 and finite differences, with a prior of one line.

The prior of these tests writes down what it was asked, so that nothing depends on how random
numbers are drawn.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.prior import sds
from hand_object.prior.grid import MINI_GRID, grid_points, hand_grid, object_grid
from hand_object.prior.schedule import respaced, signal_shares
from hand_object.prior.sds import SdsConfig, sds_loss, sds_of_grids
from training.errors import ConfigError

pytestmark = pytest.mark.usefixtures("quick_compilation")

GRID = replace(MINI_GRID, object_size=4, hand_size=4)
FEW = dict(respacing=10, first=0.2, last=0.8)


class LinePrior:
    """Guesses a multiple of what it sees, plus a number."""

    grid = GRID

    def __init__(self):
        self.asked: list[tuple[np.ndarray, int]] = []

    def encode(self, object_values, hand_values):
        return jnp.concatenate([3.0 * object_values, hand_values], axis=-1)

    def decode(self, latent):
        return latent[..., :1] / 3.0, latent[..., 1:]

    def guesses(self, noisy, step):
        self.asked.append((np.asarray(noisy, np.float64), int(step)))
        return 0.4 * noisy + 0.1, 0.25 * noisy - 0.2


@pytest.fixture
def joints(new_key):
    return jax.random.uniform(new_key(), (21, 3), minval=-1, maxval=1)


def ball(points, radius):
    return jnp.linalg.norm(points - jnp.array([[0.2, 0.1, -0.3]]), axis=-1) - radius


def grids(joints, radius=0.6):
    points = jnp.asarray(grid_points(4, GRID.limit).reshape(-1, 3))
    return object_grid(ball(points, radius), GRID), hand_grid(joints, GRID)


def residual(prior: LinePrior, latent, guidance: float):
    """(guess - noise, share of the signal) of the last question, float64."""
    noisy, step = prior.asked[-1]
    signal = signal_shares()[step]
    noise = (noisy - np.sqrt(signal) * np.asarray(latent, float)) / np.sqrt(1 - signal)
    conditional, free = 0.4 * noisy + 0.1, 0.25 * noisy - 0.2
    return free + guidance * (conditional - free) - noise, signal


@pytest.mark.parametrize(
    "weight, reduction, guidance",
    [("dream", "mean", 4.0), ("bell", "sum", 1.0), ("dream", "sum", 0.0)],
)
def test_noise_mode_has_the_gradient_of_the_formula(joints, new_key, weight, reduction, guidance):
    prior, key = LinePrior(), new_key()
    settings = SdsConfig("noise", weight, reduction, guidance, **FEW)
    objects, hands = grids(joints)

    def loss(objects, hands):
        return sds_of_grids(prior, objects, hands, key, settings).mean()

    to_object, to_hand = jax.grad(loss, argnums=(0, 1))(objects, hands)
    left, signal = residual(prior, prior.encode(objects, hands), guidance)
    factor = 1 - signal if weight == "dream" else np.sqrt(signal * (1 - signal))
    gradient = factor * left / (left.size if reduction == "mean" else 1)
    # float32 rounding of the noisy latent is magnified by 1 / sqrt(1 - a), below 4 here.
    exact = dict(rtol=1e-4, atol=2e-6 * np.abs(gradient).max())
    np.testing.assert_allclose(to_object, 3.0 * gradient[..., :1], **exact)
    np.testing.assert_allclose(to_hand, gradient[..., 1:], **exact)
    value = 0.5 * np.sum((factor * left) ** 2) / (left.size if reduction == "mean" else 1)
    np.testing.assert_allclose(loss(objects, hands), value, rtol=1e-4)


@pytest.mark.parametrize("mode", ["noise", "xstart"])
def test_gradient_of_a_shape_is_the_finite_difference_with_the_target_held(joints, new_key, mode):
    """By the radius of a ball, through distances, cut-off and encoder."""
    prior, key = LinePrior(), new_key()
    settings = SdsConfig(mode, scales=2, hand=0.0, **FEW)

    def loss(radius):
        return sds_loss(prior, lambda p: ball(p, radius), joints, key, settings).mean()

    found = float(jax.grad(loss)(0.6))
    objects, hands = grids(joints)
    latent = np.asarray(prior.encode(objects, hands), float)
    left, signal = residual(prior, latent, settings.guidance)
    points = grid_points(4, GRID.limit).reshape(-1, 3).astype(float)

    def shape(radius):
        distances = np.linalg.norm(points - [0.2, 0.1, -0.3], axis=-1) - radius
        return np.tanh(distances / GRID.truncation).reshape(4, 4, 4)

    noisy, _ = prior.asked[-1]

    def held(radius):
        if mode == "noise":
            target = latent[..., 0] - (1 - signal) * left[..., 0]
            return 0.5 * np.sum((3 * shape(radius) - target) ** 2) / latent.size
        noise = left + (noisy - np.sqrt(signal) * latent) / np.sqrt(1 - signal)
        clean = (noisy - np.sqrt(1 - signal) * noise) / np.sqrt(signal)
        error = shape(radius) - clean[..., 0] / 3
        pooled = error.reshape(2, 2, 2, 2, 2, 2).mean(axis=(1, 3, 5))
        return (1 - signal) * (np.mean(error**2) + np.mean(pooled**2))

    step = 1e-4
    wanted = (held(0.6 + step) - held(0.6 - step)) / (2 * step)
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


def test_guidance_of_one_is_the_conditional_guess(new_key):
    conditional, free = jax.random.normal(new_key(), (2, 5))
    np.testing.assert_allclose(sds.guided(conditional, free, 1.0), conditional, rtol=1e-6)
    np.testing.assert_allclose(sds.guided(conditional, free, 0.0), free)


def test_network_is_told_original_steps_between_first_and_last(joints, new_key):
    prior, settings = LinePrior(), SdsConfig(**FEW)
    for _ in range(40):
        sds_of_grids(prior, *grids(joints), new_key(), settings)
    allowed = set(respaced(10).steps[2:8].tolist())
    asked = {step for _, step in prior.asked}
    assert asked <= allowed and len(asked) >= 4


def test_a_perfect_prior_gives_no_gradient(joints, new_key):
    """Where the guess is the noise, there is nothing to learn."""
    prior, settings = LinePrior(), SdsConfig(guidance=1.0, **FEW)
    objects, hands = grids(joints)
    latent = prior.encode(objects, hands)

    def knows(noisy, step):
        signal = jnp.asarray(signal_shares(), jnp.float32)[step]
        noise = (noisy - jnp.sqrt(signal) * latent) / jnp.sqrt(1 - signal)
        return noise, noise

    prior.guesses = knows
    for mode in ("noise", "xstart"):
        own, key = replace(settings, mode=mode), new_key()

        def loss(values, own=own, key=key):
            return sds_of_grids(prior, values, hands, key, own).mean()

        assert np.abs(jax.grad(loss)(objects)).max() < 1e-5


@pytest.mark.parametrize("mode, reduction", [("noise", "sum"), ("xstart", "mean")])
def test_effective_scale_is_the_gradient_of_a_residual_of_one(joints, new_key, mode, reduction):
    """Measured over many draws with a prior that is always wrong by 1."""
    prior = LinePrior()
    objects, hands = grids(joints)
    settings = SdsConfig(mode, "dream", reduction, 1.0, **FEW)
    latent = prior.encode(objects, hands)
    signals = jnp.asarray(signal_shares(), jnp.float32)

    def wrong(noisy, step):
        signal = signals[step]
        noise = (noisy - jnp.sqrt(signal) * latent) / jnp.sqrt(1 - signal)
        # Wrong by 1: in the noise, or in the object's values that come out of the decoder.
        off = 1.0 if mode == "noise" else -3.0 * jnp.sqrt(signal / (1 - signal))
        return noise + off, noise

    prior.guesses = wrong

    def gradient(latent_object, key):
        def loss(values):
            return sds_of_grids(prior, values, hands, key, settings).mean()

        return jax.grad(loss)(latent_object)

    keys = jax.random.split(new_key(), 600)
    found = jax.vmap(gradient, in_axes=(None, 0))(objects, keys)
    size = np.abs(found).mean() / (3.0 if mode == "noise" else 1.0)
    wanted = sds.gradient_scale(settings, GRID, sds.latent_elements(4, 1))
    # Steps differ by a factor of about 4 in weight; 600 draws leave a few percent.
    np.testing.assert_allclose(size, wanted, rtol=0.08)


def test_impossible_ranges_are_refused():
    with pytest.raises(ConfigError, match=r"sds.first = 0.5 must be below sds.last = 0.5"):
        SdsConfig(first=0.5, last=0.5)
    with pytest.raises(ConfigError, match=r"no step of 4 lies between"):
        SdsConfig(respacing=4, first=0.3, last=0.35)
