"""Classification losses that ask a class score to say how well its box lies.

The target of a matched query in the class of its object is the IoU q of its box (taken as a
constant); every other score has the target 0. With p the probability and BCE the cross-entropy:

    vfl  (varifocal, Zhang et al. 2021, eq. 2):  q * BCE(p, q),     else alpha * p^gamma * BCE(p, 0)
    mal  (DEIM, Huang et al. 2025, section 3.3): BCE(p, q^gamma),   else p^gamma * BCE(p, 0)

Both start from logits, so that no logarithm of a rounded probability is taken. Weights carry no
gradient. There is no background class: a query without an object has targets of 0 in all classes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rtdetr.config import LossConfig


def classification_loss(
    logits: jax.Array, labels: jax.Array, overlap: jax.Array, config: LossConfig
) -> jax.Array:
    """Loss of each query, summed over the classes.

    Args:
      logits: `[..., Q, K]` fp32.
      labels: `[..., Q]` int32, class of the object; -1 where there is none.
      overlap: `[..., Q]` fp32, IoU with the object; not read where there is none.

    Returns:
      `[..., Q]` fp32.
    """
    hit = labels[..., None] == jnp.arange(logits.shape[-1]).reshape((1,) * labels.ndim + (-1,))
    overlap = jax.lax.stop_gradient(overlap)[..., None]
    probability = jax.lax.stop_gradient(jax.nn.sigmoid(logits))
    unsure = probability**config.gamma
    if config.classification == "vfl":
        target = jnp.where(hit, overlap, 0.0)
        weight = jnp.where(hit, overlap, config.alpha * unsure)
    else:
        target = jnp.where(hit, overlap**config.gamma, 0.0)
        weight = jnp.where(hit, 1.0, unsure)
    # softplus(z) - t z is the cross-entropy of sigmoid(z) with the target t.
    return jnp.sum(weight * (jax.nn.softplus(logits) - target * logits), axis=-1)
