"""What the model sees of a batch: normalized (and, in training, augmented) volumes, and masks.

Legend: B batch, N tokens of the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jepa3d.config import Config, MaskConfig
from jepa3d.data.augment import augment, normalize
from jepa3d.masks import Grid, sample_masks
from training.loss import Batch
from training.mesh import constrain_batch


class Inputs(NamedTuple):
    """What one batch gives to the model."""

    volumes: jax.Array  # float32 [batch, depth, height, width, 1]
    foreground_BxN: jax.Array  # bool: tokens that hold retina
    covered_BxN: jax.Array  # bool: tokens that the scan covers; the others are padding


def model_inputs(batch: Batch, keys: jax.Array | None, config: Config) -> Inputs:
    """Normalized volumes and what their tokens show.

    Args:
      batch: volume, mean, std, foreground and valid_box of `jepa3d.data.source`.
      keys: one for each example, to augment with; None takes the volumes as recorded.
      config: the smallest deviation that is divided by, the augmentation, the grid.
    """
    data, model = config.data, config.model

    def one(volume, mean, std, foreground, valid_box, key):
        volume = normalize(volume, mean, std, data.sigma_floor)
        covered = covered_tokens(valid_box, model.grid, model.patch)
        if key is not None:
            volume, foreground, covered = augment(key, volume, foreground, covered, data.augment)
        return volume[..., None], foreground.reshape(-1), covered.reshape(-1)

    over_examples = jax.vmap(one, in_axes=(0, 0, 0, 0, 0, None if keys is None else 0))
    volumes, foreground, covered = over_examples(
        batch["volume"], batch["mean"], batch["std"], batch["foreground"], batch["valid_box"], keys
    )
    return Inputs(constrain_batch(volumes), foreground, covered)


def covered_tokens(valid_box: jax.Array, grid: Grid, patch: Grid) -> jax.Array:
    """bool [grid]: tokens at least half of whose voxels the scan covers.

    Args:
      valid_box: int32 [3, 2], the half-open range of covered voxels along each axis.
      grid, patch: tokens of a volume, and voxels of a token.
    """
    shares = []
    for axis, (count, size) in enumerate(zip(grid, patch)):
        start = jnp.arange(count) * size
        low = jnp.maximum(start, valid_box[axis, 0])
        high = jnp.minimum(start + size, valid_box[axis, 1])
        shares.append(jnp.clip(high - low, 0) / size)
    return jnp.einsum("d,h,w->dhw", *shares) >= 0.5


def mask_sets(
    keys: jax.Array,
    foreground_BxN: jax.Array | None,
    covered_BxN: jax.Array,
    masks: Sequence[MaskConfig],
    grid: Grid,
) -> list[tuple[jax.Array, jax.Array]]:
    """(context ids, target ids), int32 `[batch, ...]`, of each mask set; one key per example.

    Without a foreground the masks depend on nothing that a volume shows.
    """
    drawn = []
    for number, mask in enumerate(masks):
        # Sets of one example are drawn from keys of their own, or they would nearly coincide.
        set_keys = jax.vmap(lambda key, number=number: jax.random.fold_in(key, number))(keys)

        def draw(key, foreground, covered, mask=mask):
            return sample_masks(key, grid, mask, foreground, covered)

        axes = (0, None if foreground_BxN is None else 0, 0)
        drawn.append(jax.vmap(draw, in_axes=axes)(set_keys, foreground_BxN, covered_BxN))
    return drawn


def mask_shares(
    masks: Sequence[tuple[jax.Array, jax.Array]], foreground_BxN: jax.Array, covered_BxN: jax.Array
) -> dict[str, jax.Array]:
    """Of what the masks consist: shares of retina and padding, over all sets."""

    def share(of_BxN: jax.Array, place: int) -> jax.Array:
        taken = [jnp.take_along_axis(of_BxN, mask[place], axis=1).mean() for mask in masks]
        return jnp.stack(taken).mean()

    return {
        "mask/retina_of_targets": share(foreground_BxN, 1),
        "mask/retina_of_context": share(foreground_BxN, 0),
        "mask/padding_of_targets": share(~covered_BxN, 1),
        "mask/padding_of_context": share(~covered_BxN, 0),
    }
