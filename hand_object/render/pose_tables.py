"""Poses of every frame as parameters: they start at what preprocessing found, and are learned.

An object: {"rotation": [T, 3], "translation": [T, 3], "log_scale": []}. A hand: {"pose": [T, J, 3],
"translation": [T, 3], "shape": [C]}. Rotations are axis-angles in rad, translations meters in the
world; the scale is meters per raw unit of the object. Letters: T frames of the sequence, F of a
batch, J joints with the global rotation first.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from hand_object.fields.layers import Params
from hand_object.render.placement import ObjectPlacement
from hand_object.render.rigid import object_similarity
from training.errors import InputError


def object_table(rotation: np.ndarray, translation: np.ndarray, scale: float) -> Params:
    """The table of an object.

    Raises:
      InputError: rotations and translations are not [T, 3] each, not finite, or the scale is not
        above zero.
    """
    _check("object rotations", rotation, (len(translation), 3))
    _check("object translations", translation, (len(rotation), 3))
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"the scale of the object is {scale}; it must be above 0 meters a unit")
    return {
        "rotation": jnp.asarray(rotation, jnp.float32),
        "translation": jnp.asarray(translation, jnp.float32),
        "log_scale": jnp.float32(np.log(scale)),
    }


def hand_table(pose: np.ndarray, translation: np.ndarray, shape: np.ndarray) -> Params:
    """The table of a hand.

    Raises:
      InputError: poses are not [T, J, 3], translations not [T, 3], or some are not finite.
    """
    _check("hand poses", pose, (len(translation), pose.shape[1] if pose.ndim == 3 else -1, 3))
    _check("hand translations", translation, (len(pose), 3))
    return {
        "pose": jnp.asarray(pose, jnp.float32),
        "translation": jnp.asarray(translation, jnp.float32),
        "shape": jnp.asarray(shape, jnp.float32),
    }


def _check(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        wanted = " x ".join("joints" if size < 0 else str(size) for size in shape)
        raise InputError(f"{name} have the shape {array.shape}; give {wanted}, a row per frame")
    broken = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    if broken.any():
        raise InputError(
            f"{name} are not finite in frame {int(broken.argmax())} ({int(broken.sum())} frames in "
            "all); interpolate them or leave these frames out"
        )


def rows(table: Params, frames: jax.Array) -> Params:
    """The entries of frames [F]; what is shared by all frames stays as it is."""
    return {
        name: leaf if name in ("shape", "log_scale") else leaf[frames]
        for name, leaf in table.items()
    }


def object_placement(
    table: Params,
    frames: jax.Array,
    scene_scale: jax.Array,
    center: jax.Array,
    radius: jax.Array,
) -> ObjectPlacement:
    """Where the object is in frames [F]; see `rigid.object_similarity`."""
    own = rows(table, frames)
    similarity = object_similarity(
        own["rotation"], own["translation"], jnp.exp(own["log_scale"]), scene_scale, center, radius
    )
    return ObjectPlacement(similarity, frames)


def finger_pose(table: Params, frames: jax.Array) -> jax.Array:
    """[F, 3 (J - 1)] rad: the pose without the global rotation, for the pose code."""
    return table["pose"][frames, 1:].reshape(len(frames), -1)
