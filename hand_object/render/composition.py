"""From the samples of several nodes along a ray to one pixel.

`additive` (the default): the density of each node is constant from a sample to the next one of the
same node; on the merged intervals the densities of all nodes add up, and colors mix by density.
`hold_sort` is what HOLD (Fan et al. 2024) does: all samples sorted, each one standing for the gap
to the next sample of any node. That gives every node only a part of its length, and is kept for
comparison with checkpoints that were trained so.

Letters: R rays, S samples of a node, M merged intervals, K nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hand_object.config import DensityConfig
from hand_object.fields.density import opacity, optical_depth

TINY = 1e-10  # densities below it give no color


class Samples(NamedTuple):
    """One node along rays: z [R, S + 1] sorted, with the end; sigma [R, S]; values [R, S, C]."""

    z: jax.Array
    sigma: jax.Array
    values: jax.Array


class Composite(NamedTuple):
    """values [R, C] without background; weights [R, K] of nodes; background [R]; depth [R].

    Weights and background, the share of light that passes, sum to 1; depth is weighted by them,
    without the background.
    """

    values: jax.Array
    weights: jax.Array
    background: jax.Array
    depth: jax.Array


def compose(nodes: Sequence[Samples], config: DensityConfig, kind: str) -> Composite:
    """Pixels of nodes in a fixed order; `kind` is `additive` or `hold_sort`."""
    return (additive if kind == "additive" else hold_sort)(nodes, config)


def additive(nodes: Sequence[Samples], config: DensityConfig) -> Composite:
    """Sums of densities that are constant between the samples of their own node."""
    edges = jnp.sort(jnp.concatenate([node.z for node in nodes], axis=-1), axis=-1)
    edges = jax.lax.stop_gradient(edges)
    start, delta = edges[:, :-1], jnp.diff(edges, axis=-1)
    looked_up = [_at(node, start) for node in nodes]
    sigma_RxMxK = jnp.stack([sigma for sigma, _ in looked_up], axis=-1)
    sigma = jnp.sum(sigma_RxMxK, axis=-1)
    weights_RxM, background = _weights(optical_depth(sigma, delta, config))
    shares_RxMxK = sigma_RxMxK / jnp.maximum(sigma, TINY)[..., None]
    node_weights_RxMxK = weights_RxM[..., None] * shares_RxMxK
    values = sum(
        jnp.sum(node_weights_RxMxK[..., k, None] * values, axis=1)
        for k, (_, values) in enumerate(looked_up)
    )
    depth = jnp.sum(weights_RxM * (start + 0.5 * delta), axis=-1)
    return Composite(jnp.asarray(values), jnp.sum(node_weights_RxMxK, axis=1), background, depth)


def _at(node: Samples, start: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Density [R, M] and values [R, M, C] that hold from the depths `start` on.

    A product with zeros and ones takes the place of reads at random places, whose gradient would
    be additions at random places.
    """
    z = jax.lax.stop_gradient(node.z)
    inside = (z[:, None, :-1] <= start[..., None]) & (start[..., None] < z[:, None, 1:])
    both = jnp.concatenate([node.sigma[..., None], node.values], axis=-1)
    found = jnp.einsum(
        "rms,rsc->rmc", inside.astype(both.dtype), both, precision=jax.lax.Precision.HIGHEST
    )
    return found[..., 0], found[..., 1:]


def hold_sort(nodes: Sequence[Samples], config: DensityConfig) -> Composite:
    """All samples in one row; the repeated ends of the nodes are dropped as HOLD does."""
    count = len(nodes)
    z = jnp.concatenate([node.z[:, :-1] for node in nodes], axis=-1)
    last = jnp.max(jnp.stack([node.z[:, -1] for node in nodes]), axis=0)
    sigma = jnp.concatenate([node.sigma for node in nodes], axis=-1)
    values = jnp.concatenate([node.values for node in nodes], axis=1)
    owner = jnp.concatenate(
        [jnp.full(node.sigma.shape[-1], k) for k, node in enumerate(nodes)], axis=-1
    )
    kept = slice(count - 1, z.shape[-1] - count if count > 1 else None)
    order = jnp.argsort(jax.lax.stop_gradient(z), axis=-1)[:, kept]
    z = jax.lax.stop_gradient(jnp.take_along_axis(z, order, axis=-1))
    sigma = jnp.take_along_axis(sigma, order, axis=-1)
    values = jnp.take_along_axis(values, order[..., None], axis=1)
    delta = jnp.diff(jnp.concatenate([z, jnp.maximum(last[:, None], z[:, -1:])], axis=-1), axis=-1)
    weights_RxM, background = _weights(optical_depth(sigma, delta, config))
    mine_RxMxK = jax.nn.one_hot(owner[order], count)
    return Composite(
        jnp.sum(weights_RxM[..., None] * values, axis=1),
        jnp.sum(weights_RxM[..., None] * mine_RxMxK, axis=1),
        background,
        jnp.sum(weights_RxM * z, axis=-1),
    )


def _weights(tau: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Optical depths [R, M] -> weights [R, M] and what passes all of them [R]."""
    after = jnp.cumsum(tau, axis=-1)
    return jnp.exp(-(after - tau)) * opacity(tau), jnp.exp(-after[:, -1])


def own_opacity(node: Samples, config: DensityConfig) -> jax.Array:
    """[R]: how opaque a node would be alone, the probability of its mask."""
    tau = optical_depth(node.sigma, jnp.diff(jax.lax.stop_gradient(node.z), axis=-1), config)
    return opacity(jnp.sum(tau, axis=-1))
