"""A trained prior: what `sds.sds_loss` asks, as a pytree that compiled functions take as argument.

Letters: D, H, W voxels of the latent, C channels, K numbers of a condition.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from hand_object.prior.diffusion import as_noise, guess, restored, standardized
from hand_object.prior.grid import JOINTS, MINI_GRID, GridConfig
from hand_object.prior.model.unet import MINI_UNET, Unet, UnetConfig
from hand_object.prior.model.vqvae import Vqvae, VqvaeConfig
from training.errors import ConfigError


@dataclass(frozen=True)
class PriorForm:
    """Everything about a prior but its numbers; saved with them.

    Attributes:
      grid: what it sees.
      unet: its network.
      autoencoder: of the object's grid; None where the network sees the grids themselves,
        standardized.
      hand: name of the hand model that its grasps were made with.
    """

    grid: GridConfig = MINI_GRID
    unet: UnetConfig = MINI_UNET
    autoencoder: VqvaeConfig | None = None
    hand: str = ""

    def __post_init__(self):
        factor = self.autoencoder.factor if self.autoencoder else 1
        if self.grid.object_size != factor * self.grid.hand_size:
            raise ConfigError(
                f"a prior with grids of {self.grid.object_size}^3 for the object and "
                f"{self.grid.hand_size}^3 for the hand needs an autoencoder that shrinks by "
                f"{self.grid.object_size / self.grid.hand_size:g}; this one shrinks by {factor}"
            )

    @property
    def channels(self) -> int:
        """Of the latent, with the hand's."""
        return JOINTS + (self.autoencoder.channels if self.autoencoder else 1)

    def shapes(self) -> dict[str, Any]:
        """The parameters as `jax.ShapeDtypeStruct`, by network."""
        return _shapes(self)


@cache
def _shapes(form: PriorForm) -> dict[str, Any]:
    side, size, channels = form.grid.hand_size, form.grid.object_size, form.channels
    key = jax.eval_shape(lambda: jax.random.key(0))

    def init_unet(key):
        grid = jnp.zeros((1, side, side, side, channels))
        arguments = (grid, jnp.zeros(1, jnp.int32), jnp.zeros((1, form.unet.condition)))
        return Unet(form.unet).init(key, *arguments)["params"]

    found: dict[str, Any] = {"unet": jax.eval_shape(init_unet, key)}
    if (config := form.autoencoder) is not None:
        grid = jnp.zeros((1, size, size, size, 1))
        found["autoencoder"] = jax.eval_shape(
            lambda key: Vqvae(config).init(key, grid)["params"], key
        )
    else:
        mean = jax.ShapeDtypeStruct((side, side, side, channels), jnp.float32)
        deviation = jax.ShapeDtypeStruct((channels,), jnp.float32)
        found["statistics"] = {"mean": mean, "deviation": deviation}
    return found


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainedPrior:
    """Fulfills `sds.Prior`.

    Attributes:
      params: by network, as `PriorForm.shapes` has them.
      condition, empty: [K] what the network is told of the object, and what says nothing.
      form: static.
    """

    params: Any
    condition: jax.Array
    empty: jax.Array
    form: PriorForm = field(metadata={"static": True})

    @property
    def grid(self) -> GridConfig:
        return self.form.grid

    def encode(self, object_values: jax.Array, hand_values: jax.Array) -> jax.Array:
        """[D, H, W, 1] of the object and [D, H, W, 20] of the hand -> latent [D, H, W, C]."""
        if self.form.autoencoder is None:
            grids = jnp.concatenate([object_values, hand_values], axis=-1)
            return standardized(grids, self.params["statistics"])
        objects = self._autoencoder("encode", object_values)
        return jnp.concatenate([objects, hand_values], axis=-1)

    def decode(self, latent: jax.Array) -> tuple[jax.Array, jax.Array]:
        if self.form.autoencoder is None:
            latent = restored(latent, self.params["statistics"])
            return latent[..., :-JOINTS], latent[..., -JOINTS:]
        return self._autoencoder("decode", latent[..., :-JOINTS]), latent[..., -JOINTS:]

    def guesses(self, noisy: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Noise in a latent at an original step, with and without the condition."""
        pair = jnp.stack([noisy, noisy])
        steps = jnp.broadcast_to(jnp.asarray(step, jnp.int32), (2,))
        conditions = jnp.stack([self.condition, self.empty])
        found = guess(self.params["unet"], self.form.unet, pair, steps, conditions)
        conditional, free = as_noise(found, pair, steps, self.form.unet.guesses)
        return conditional, free

    def _autoencoder(self, method: str, values: jax.Array) -> jax.Array:
        assert self.form.autoencoder is not None
        network = Vqvae(self.form.autoencoder)
        params = {"params": self.params["autoencoder"]}
        return jnp.asarray(network.apply(params, values[None], method=method))[0]


_SHAPE = ("object_size", "hand_size")


def check_grid(prior: GridConfig, wanted: GridConfig, name: str) -> None:
    """Raises ConfigError where a prior has another grid than the run wants: shape, then units."""
    differing = [
        key.name
        for key in fields(GridConfig)
        if getattr(prior, key.name) != getattr(wanted, key.name)
    ]
    shape = [key for key in differing if key in _SHAPE]
    if shape:
        raise ConfigError(
            f"the prior {name} has a grid of another shape than the run: "
            f"{_differences(prior, wanted, shape)}; choose the prior that fits, or its grid"
        )
    if differing:
        raise ConfigError(
            f"the prior {name} was trained with another normalization than the run's: "
            f"{_differences(prior, wanted, differing)}; choose the prior that fits, or its grid"
        )


def _differences(prior: GridConfig, wanted: GridConfig, keys: list[str]) -> str:
    return ", ".join(
        f"{key} is {getattr(prior, key)!r} of the prior and {getattr(wanted, key)!r} of the run"
        for key in keys
    )
