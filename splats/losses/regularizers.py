"""Loss terms on parameters alone, and how their gradients are told from those of the data.

The regularizers touch two leaves of the Gaussians. The renderer is given each of them plus a probe
of zeros: the gradient with respect to the probe is that of what was rendered, while the gradient
with respect to the leaf is that of the whole loss. One backward pass gives both.

Vocabulary: N slots for Gaussians; `seen` float32 [N], how many views of the batch see each.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from splats.config import LossConfig
from splats.losses import bilateral
from training.loss import Total

Probes = dict[str, jax.Array]


def terms(losses: LossConfig, params: dict[str, Any], seen: jax.Array) -> dict[str, Total]:
    """The terms whose coefficient is not zero.

    Gaussians out of sight are left alone: nothing would pull them back, and MCMC collapses. One
    that several views see counts once for each, so that micro-batches add up to the whole batch.
    """
    gaussians, found = params["gaussians"], {}
    rows = seen.astype(jnp.float32)
    if losses.opacity:
        opacity = jax.nn.sigmoid(gaussians["opacities"])
        found["opacity"] = Total(jnp.sum(rows * opacity), jnp.sum(rows))
    if losses.scale:
        scale = jnp.mean(jnp.exp(gaussians["scales"]), axis=1)
        found["scale"] = Total(jnp.sum(rows * scale), jnp.sum(rows))
    if losses.total_variation and "bilateral" in params:
        found["tv"] = Total(bilateral.total_variation(params["bilateral"]), jnp.float32(1.0))
    return found


def probes(losses: LossConfig, capacity: int) -> Probes:
    """Zeros like the leaves of the Gaussians that have a regularizer."""
    zeros = {}
    if losses.opacity:
        zeros["opacities"] = jnp.zeros(capacity)
    if losses.scale:
        zeros["scales"] = jnp.zeros((capacity, 3))
    return zeros


def apart(params: dict[str, Any], given: Probes) -> tuple[dict[str, Any], Probes]:
    """Parameters for the renderer, with the probes of their leaves added; and the other probes."""
    gaussians = params["gaussians"]
    probed = {name: gaussians[name] + zero for name, zero in given.items() if name in gaussians}
    others = {name: zero for name, zero in given.items() if name not in gaussians}
    return params | {"gaussians": gaussians | probed}, others
