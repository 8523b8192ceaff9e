"""Denoising queries: noisy copies of the objects, from which the decoder must find them again.

Contrastive denoising (Zhang et al. 2023, DINO, section 3.3): a *positive* starts near its object
and must return to it; a *negative* starts further off and must say that there is nothing. A *group*
holds every object once as positive and once as negative; a query sees its own group and the
matching queries, which never see denoising queries.

The published code pads all images to the fullest one of the batch. Here each image fills S positive
*slots* and S negative ones by itself, with as many whole groups as go in: shapes are static, sparse
images get more groups, and nothing depends on the other images of the batch. An image with more
than S objects trains a random choice of S of them.

Shapes: B images, M padded objects, S slots, D = 2 S denoising queries (positives first), Q matching
queries, K classes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rtdetr.config import DenoisingConfig
from rtdetr.targets import NO_OBJECT, DenoisingQueries, Targets

LOGIT_MARGIN = 1e-5  # coordinates are kept so far from 0 and 1


def make_queries(
    keys: jax.Array, targets: Targets, config: DenoisingConfig, classes: int, queries: int
) -> DenoisingQueries:
    """The denoising queries of a batch.

    Args:
      keys: `[B]` PRNG keys, one for each image, so that its noise is the same on any mesh.
      classes: K.
      queries: Q, matching queries that stand behind the denoising ones in `allowed`.
    """
    slot_object, group, used = _packed(keys, targets, config.slots)
    boxes = jnp.take_along_axis(targets.boxes.values, slot_object[..., None], axis=1)
    labels = jnp.take_along_axis(targets.labels, slot_object, axis=1)

    def noisy(key, boxes, labels):
        label_key, box_key = jax.random.split(jax.random.fold_in(key, 1))
        return (
            _noisy_labels(label_key, jnp.tile(labels, 2), config.label_noise, classes),
            _noisy_boxes(box_key, boxes, config.box_noise),
        )

    noisy_labels, noisy_boxes = jax.vmap(noisy)(keys, boxes, labels)
    both = jnp.tile(used, (1, 2))
    target = jnp.where(used, slot_object, NO_OBJECT)
    return DenoisingQueries(
        classes=jnp.where(both, noisy_labels, classes).astype(jnp.int32),
        boxes_logit=jnp.where(both[..., None], _logit(noisy_boxes), 0.0),
        target=jnp.concatenate([target, jnp.full_like(target, NO_OBJECT)], axis=1),
        used=both,
        allowed=_allowed(jnp.tile(group, (1, 2)), both, queries),
    )


def _packed(
    keys: jax.Array, targets: Targets, slots: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The object and group of each slot `[B, S]`, and whether it is used."""
    objects = targets.labels.shape[1]
    count = targets.count[:, None]
    taken = jnp.clip(count, 1, slots)  # objects of one group; 1 where there is none
    slot = jnp.arange(slots)[None]
    number, group = slot % taken, slot // taken
    used = (count > 0) & (group < slots // taken)
    # One draw for each object, so that the choice does not depend on the amount of padding.
    draws = jax.vmap(lambda key: jax.vmap(lambda m: _uniform(key, m))(jnp.arange(objects)))(keys)
    chosen = jnp.argsort(jnp.where(targets.valid, draws, jnp.inf), axis=1)
    crowded = jnp.take_along_axis(chosen, jnp.minimum(number, objects - 1), axis=1)
    return jnp.where(count > slots, crowded, number).astype(jnp.int32), group, used


def _uniform(key: jax.Array, number: jax.Array) -> jax.Array:
    return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, 0), number))


def _noisy_labels(key: jax.Array, labels: jax.Array, noise: float, classes: int) -> jax.Array:
    """`[D]`; with a probability of half the noise, any class (the right one among them)."""
    change_key, class_key = jax.random.split(key)
    changed = jax.random.uniform(change_key, labels.shape) < noise / 2
    return jnp.where(changed, jax.random.randint(class_key, labels.shape, 0, classes), labels)


def _noisy_boxes(key: jax.Array, boxes: jax.Array, noise: float) -> jax.Array:
    """`[S, 4]` as `[2 S, 4]`, each edge moved by [0, 1) or, of negatives, [1, 2) half sides."""
    sign_key, part_key = jax.random.split(key)
    slots = boxes.shape[0]
    centers, sides = boxes[:, :2], boxes[:, 2:]
    edges = jnp.tile(jnp.concatenate([centers - sides / 2, centers + sides / 2], axis=1), (2, 1))
    reach = jnp.tile(sides / 2, (2, 2)) * noise
    sign = jax.random.rademacher(sign_key, edges.shape, jnp.float32)
    part = jax.random.uniform(part_key, edges.shape)
    part = part + (jnp.arange(2 * slots) >= slots)[:, None]
    moved = jnp.clip(edges + sign * part * reach, 0.0, 1.0)
    low, high = moved[:, :2], moved[:, 2:]
    # Edges that have passed each other make a negative side, which the logit lifts to its margin.
    return jnp.concatenate([(low + high) / 2, high - low], axis=1)


def _logit(x: jax.Array) -> jax.Array:
    x = jnp.clip(x, 0.0, 1.0)
    return jnp.log(jnp.maximum(x, LOGIT_MARGIN)) - jnp.log(jnp.maximum(1 - x, LOGIT_MARGIN))


def _allowed(group: jax.Array, used: jax.Array, queries: int) -> jax.Array:
    """`[B, D + Q, D + Q]`: whether the first may attend to the second."""
    images, denoising = group.shape
    together = (group[:, :, None] == group[:, None, :]) & used[:, :, None] & used[:, None, :]
    to_denoising = jnp.pad(together, ((0, 0), (0, queries), (0, 0)))
    to_matching = jnp.ones((images, denoising + queries, queries), bool)
    return jnp.concatenate([to_denoising, to_matching], axis=2)
