"""Volumes to flattened patches, and gathers by token id.

Legend: B batch, N tokens of the whole grid, K tokens of a subset, D feature width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def patchify(volumes: jax.Array, patch: tuple[int, int, int]) -> jax.Array:
    """Cuts volumes into flattened patches in token order.

    A Dense layer on the result equals a stride = kernel VALID convolution: the values of a patch
    run in the order (channel, depth, height, width), the order of a torch Conv3d kernel
    [out, channel, depth, height, width] flattened after its first axis.

    Args:
        volumes: [batch, depth, height, width, channel], any float dtype.
        patch: voxels per token (depth, height, width); divides the volume.

    Returns:
        [batch, tokens, channel * patch voxels], same dtype; token id = (d·H + h)·W + w.
    """
    batch, depth, height, width, channels = volumes.shape
    pd, ph, pw = patch
    grid = (depth // pd, height // ph, width // pw)
    blocks = volumes.reshape(batch, grid[0], pd, grid[1], ph, grid[2], pw, channels)
    blocks = blocks.transpose(0, 1, 3, 5, 7, 2, 4, 6)
    return blocks.reshape(batch, grid[0] * grid[1] * grid[2], channels * pd * ph * pw)


def gather_tokens(tokens_BxNxD: jax.Array, ids_BxK: jax.Array) -> jax.Array:
    """Picks tokens by id: [batch, K, D]. A leading axis of 1 is shared by all samples."""
    # Ids are always in range; "clip" saves the pass that the default mode spends on filling.
    if tokens_BxNxD.shape[0] == 1:
        return jnp.take(tokens_BxNxD[0], ids_BxK, axis=0, mode="clip")
    return jnp.take_along_axis(tokens_BxNxD, ids_BxK[:, :, None], axis=1, mode="clip")
