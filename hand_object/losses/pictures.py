"""Rendered pixels against photographs and masks.

Letters: F frames, R rays of each.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from hand_object.data.sequence import BACKGROUND, CLASS_OF, UNKNOWN
from hand_object.render.scene import CLASSES
from training.loss import Total


def explained(classes: jax.Array, there: jax.Array) -> jax.Array:
    """[F, R] 1 where the model has what a pixel shows: background, a node with a pose, or unknown.

    Args:
      classes: [F, R] of masks.
      there: [F, 4] whether the node of a class has a pose in the frame.
    """
    known = jnp.minimum(classes, len(CLASSES) - 1)
    here = jnp.take_along_axis(there, known, axis=1)
    return jnp.where(classes == UNKNOWN, 1.0, here.astype(jnp.float32))


def rgb(color: jax.Array, wanted: jax.Array, weight: jax.Array) -> Total:
    """L1 summed over the colors [F, R, 3] (HOLD), mean over pixels that count [F, R]."""
    wrong = jnp.sum(jnp.abs(color - wanted), axis=-1)
    return Total(jnp.sum(weight * wrong), jnp.sum(weight))


def mask(semantics: jax.Array, classes: jax.Array, weight: jax.Array) -> Total:
    """Squared error of the shares of each class [F, R, 4], summed over classes (HOLD).

    The shares are those of what is seen: an object behind a hand has none, so that its opacity
    under pixels of the hand costs nothing, and the same holds the other way around.
    """
    wanted = jax.nn.one_hot(classes, semantics.shape[-1])
    weight = jnp.where(classes == UNKNOWN, 0.0, weight)
    wrong = jnp.sum(jnp.square(semantics - wanted), axis=-1)
    return Total(jnp.sum(weight * wrong), jnp.sum(weight))


def sparse(opacities: Mapping[str, jax.Array], classes: jax.Array, weight: jax.Array) -> Total:
    """Opacity of each node alone [F, R] under pixels of the background, where nothing hides it.

    Under pixels of another node it may be anything: it may be behind.
    """
    free = jnp.where(classes == BACKGROUND, weight, 0.0)
    total = sum((jnp.sum(free * opacity) for opacity in opacities.values()), jnp.float32(0.0))
    return Total(total, jnp.sum(free) * len(opacities))


def node_weights(names: list[str], there: jax.Array) -> dict[str, jax.Array]:
    """[F] 1 where a node has a pose."""
    return {name: there[:, CLASS_OF[name]].astype(jnp.float32) for name in names}
