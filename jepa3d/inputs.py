"""What the model sees of a batch: normalized (and, in training, augmented) volumes, and masks.

Legend: B batch, N tokens of the grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jepa3d.config import DataConfig, MaskConfig
from jepa3d.data.augment import augment, normalize
from jepa3d.masks import Grid, sample_masks
from training.loss import Batch
from training.mesh import constrain_batch


def model_volumes(
    batch: Batch, keys: jax.Array | None, data: DataConfig
) -> tuple[jax.Array, jax.Array]:
    """Volumes float32 `[batch, depth, height, width, 1]` and foreground bool `[batch, tokens]`.

    Args:
      batch: volume, mean, std and foreground of `jepa3d.data.source`.
      keys: one for each example, to augment with; None takes the volumes as recorded.
      data: the smallest deviation that is divided by, and the augmentation.
    """

    def one(volume, mean, std, foreground, key):
        volume = normalize(volume, mean, std, data.sigma_floor)
        if key is not None:
            volume, foreground = augment(key, volume, foreground, data.augment)
        return volume[..., None], foreground.reshape(-1)

    volumes, foreground = jax.vmap(one, in_axes=(0, 0, 0, 0, None if keys is None else 0))(
        batch["volume"], batch["mean"], batch["std"], batch["foreground"], keys
    )
    return constrain_batch(volumes), foreground


def mask_sets(
    keys: jax.Array, foreground_BxN: jax.Array, masks: Sequence[MaskConfig], grid: Grid
) -> list[tuple[jax.Array, jax.Array]]:
    """(context ids, target ids), int32 `[batch, ...]`, of each mask set; one key per example."""
    drawn = []
    for number, mask in enumerate(masks):
        # Sets of one example are drawn from keys of their own, or they would nearly coincide.
        set_keys = jax.vmap(lambda key, number=number: jax.random.fold_in(key, number))(keys)
        draw = jax.vmap(lambda key, share, mask=mask: sample_masks(key, grid, mask, share))
        drawn.append(draw(set_keys, foreground_BxN.astype(jnp.float32)))
    return drawn
