"""Score distillation: what a prior says about a scene, as a loss of the scene.

The object's distances and the hand's joints are put on the prior's grid, made noisy, and the prior
guesses the noise (Poole et al. 2023; Ye et al. 2024, G-HOP).

* `noise`: the gradient at the latent is w(t) (guess - noise), by a surrogate whose value is half of
  its square; it goes through the encoder, if the prior has one.
* `xstart`: the guess of the clean latent is decoded, and the grids are compared with it, which
  needs no derivative of the encoder.

Letters: D, H, W voxels; a = share of the signal in the noisy latent; g = guidance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from hand_object.prior.grid import JOINTS, GridConfig, grid_points, hand_grid, object_grid
from hand_object.prior.schedule import Respaced, respaced
from training.errors import ConfigError
from training.loss import Total
from training.settings import setting


@dataclass(frozen=True)
class SdsConfig:
    """How the prior is asked. `xstart` of G-HOP: t_range .25 to .75, respacing 100, `bell`."""

    mode: str = setting("noise", choices=("noise", "xstart"))
    weight: str = setting("dream", choices=("dream", "bell"))  # 1 - a, or sqrt(a (1 - a))
    # A mean over 94,208 numbers is 94,208 times smaller than the sum.
    reduction: str = setting("mean", choices=("mean", "sum"))
    guidance: float = setting(4.0, least=0, most=100)  # 1: the conditional guess alone
    respacing: int = setting(50, least=2, most=1000)  # steps of 1000 that are drawn from
    first: float = setting(0.02, least=0, below=1)  # share of the steps, from the least noisy
    last: float = setting(0.98, above=0, most=1)
    hand: float = setting(10.0, least=0, most=1e4)  # xstart: weight of the hand's channels
    scales: int = setting(1, least=1, most=5)  # xstart: grids halved this many times, less one

    def __post_init__(self):
        if self.first >= self.last:
            raise ConfigError(
                f"sds.first = {self.first:g} must be below sds.last = {self.last:g}; steps are "
                "drawn between the two"
            )
        low, high = step_range(self)
        if low >= high:
            raise ConfigError(
                f"no step of {self.respacing} lies between sds.first = {self.first:g} and "
                f"sds.last = {self.last:g}; move them apart or raise sds.respacing"
            )


class Prior(Protocol):
    """What a prior must be able to do. Latents are [D, H, W, C], without a batch."""

    @property
    def grid(self) -> GridConfig: ...

    def encode(self, object_values: jax.Array, hand_values: jax.Array) -> jax.Array:
        """Grids [D, H, W, 1] and [D, H, W, 20] -> latent."""
        ...

    def decode(self, latent: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Latent -> grids of object and hand."""
        ...

    def guesses(self, noisy: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Noise in a latent at an original step, guessed with and without the condition."""
        ...


def step_range(settings: SdsConfig) -> tuple[int, int]:
    """[low, high) in the respaced steps."""
    count = settings.respacing
    low, high = round(settings.first * count), round(settings.last * count)
    return low, min(high, count)


def guided(conditional: jax.Array, free: jax.Array, guidance: float) -> jax.Array:
    """Classifier-free guidance (Ho and Salimans 2022)."""
    return free + guidance * (conditional - free)


def weight_of(signal: jax.Array, kind: str) -> jax.Array:
    """w(t) of a share of the signal."""
    return 1.0 - signal if kind == "dream" else jnp.sqrt(signal * (1.0 - signal))


def surrogate(latent: jax.Array, gradient: jax.Array, reduction: str) -> Total:
    """Half the square of `gradient`, whose derivative by `latent` is `gradient`.

    With `mean` value and derivative are divided by the number of elements.
    """
    target = jax.lax.stop_gradient(latent - gradient)
    half = 0.5 * jnp.sum(jnp.square(latent - target))
    return Total(half, jnp.float32(latent.size if reduction == "mean" else 1))


def sds_loss(
    prior: Prior,
    object_distance: Callable[[jax.Array], jax.Array],
    joints: jax.Array,
    key: jax.Array,
    settings: SdsConfig,
) -> Total:
    """The loss of one random step and one random noise.

    Args:
      object_distance: points [N, 3] in the hand-normalized frame -> distances [N] in its units.
      joints: [21, 3] in the hand-normalized frame, the wrist first.
    """
    grid = prior.grid
    points = jnp.asarray(grid_points(grid.object_size, grid.limit).reshape(-1, 3))
    objects = object_grid(object_distance(points), grid)
    return sds_of_grids(prior, objects, hand_grid(joints, grid), key, settings)


def sds_of_grids(
    prior: Prior, objects: jax.Array, hands: jax.Array, key: jax.Array, settings: SdsConfig
) -> Total:
    """`sds_loss` of grids [D, H, W, 1] and [D, H, W, 20] that are there already."""
    step_key, noise_key = jax.random.split(key)
    spaced = respaced(settings.respacing)
    index = jax.random.randint(step_key, (), *step_range(settings))
    latent = prior.encode(objects, hands)
    noise = jax.random.normal(noise_key, latent.shape)
    signal = jnp.asarray(spaced.signal)[index]
    # The prior only judges: nothing is differentiated through it.
    still = jax.lax.stop_gradient(latent)
    noisy = jnp.sqrt(signal) * still + jnp.sqrt(1.0 - signal) * noise
    conditional, free = prior.guesses(noisy, jnp.asarray(spaced.steps)[index])
    guess = jax.lax.stop_gradient(guided(conditional, free, settings.guidance))
    weight = weight_of(signal, settings.weight)
    if settings.mode == "noise":
        return surrogate(latent, weight * (guess - noise), settings.reduction)
    clean = (noisy - jnp.sqrt(1.0 - signal) * guess) / jnp.sqrt(signal)
    wanted = jax.lax.stop_gradient(prior.decode(clean))
    return _compared(objects, hands, wanted, weight, settings)


def _compared(objects, hands, wanted, weight, settings: SdsConfig) -> Total:
    """Square errors of the object at all scales and of the hand, as means (or sums)."""
    wanted_object, wanted_hand = wanted
    value = jnp.float32(0.0)
    error = objects - wanted_object
    for scale in range(settings.scales):
        value += jnp.mean(jnp.square(error if scale == 0 else _pooled(error, 2**scale)))
    value += 0.5 * settings.hand * jnp.mean(jnp.square(hands - wanted_hand))
    if settings.reduction == "sum":
        value *= objects.size
    return Total(weight * value, jnp.float32(1.0))


def _pooled(values: jax.Array, factor: int) -> jax.Array:
    """[D, H, W, C] -> means of cubes of `factor` voxels along a side."""
    depth, height, width, channels = values.shape
    cubes = values.reshape(
        depth // factor, factor, height // factor, factor, width // factor, factor, channels
    )
    return jnp.mean(cubes, axis=(1, 3, 5))


def gradient_scale(settings: SdsConfig, grid: GridConfig, latent_elements: int) -> float:
    """Mean size of the gradient at one element for a residual of 1, without the loss's coefficient.

    It is what `sum` and `mean` hide: G-HOP's coefficient of 5000 belongs to a mean. Of `xstart` at
    the finest scale, at the object's grid; of `noise` at the latent.
    """
    low, high = step_range(settings)
    spaced: Respaced = respaced(settings.respacing)
    signal = spaced.signal[low:high].astype(np.float64)
    weights = 1.0 - signal if settings.weight == "dream" else np.sqrt(signal * (1.0 - signal))
    mean = float(np.mean(weights))
    if settings.mode == "noise":
        return mean if settings.reduction == "sum" else mean / latent_elements
    return 2.0 * mean if settings.reduction == "sum" else 2.0 * mean / grid.object_size**3


def latent_elements(side: int, channels: int) -> int:
    """Numbers of a latent of a side and of the object's channels, with the hand's."""
    return side**3 * (channels + JOINTS)
