"""The loss of RT-DETR: matched sets, selected tokens and denoising queries.

Every set of predictions has three terms: `class` (see `classification`), `l1` of center and sides,
and `giou` (1 - GIoU). The last decoder layer gives `class`, `l1`, `giou`; the layers before it
together `class_layers`, ...; the selected tokens `class_encoder`, ...; the denoising queries of all
layers `class_denoising`, .... Each is a sum, divided by the number of objects of the whole batch
(denoising: of the slots that stand for one), or by 1 where there is none: see
`LossTerm.least_weight`. An image without objects still teaches what is nothing.

Everything is float32, whatever the network computes in. No array is written at computed places: the
object of a query is gathered, so that no index and no dtype can be off.

Shapes: S sets, L decoder layers, B images, M objects, Q queries, D denoising queries, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from rtdetr.boxes import Boxes, cxcywh_norm
from rtdetr.config import LossConfig
from rtdetr.losses.assignment import FREE, assign
from rtdetr.losses.classification import classification_loss
from rtdetr.losses.matching_cost import matching_cost
from rtdetr.losses.overlap import iou_and_giou
from rtdetr.targets import DenoisingQueries, DetectorOutput, Predictions, Targets
from training.errors import ConfigError
from training.loss import LossTerm, Total

NAMES = ("class", "l1", "giou")
# A box may leave its canvas by so much of it: edges are rounded.
EDGE_TOLERANCE = 1e-3


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Criterion:
    """What the criterion finds.

    Attributes:
      terms: without weights, under the names of `terms`.
      metrics: `loss_layer/<i>/<term>` of each decoder layer, `matched_iou` (mean over objects,
        last layer), `mean_probability` (of all classes and queries, last layer),
        `nonfinite_costs` (pairs), `unmatched` (objects without a query), `invalid_objects`
        (boxes or labels that no right data has).
      assigned: `[L + 1, B, Q]` int32, object of each query, or -1; the encoder is the last set.
    """

    terms: dict[str, Total]
    metrics: dict[str, Total]
    assigned: jax.Array


def terms(config: LossConfig, layers: int) -> dict[str, LossTerm]:
    """The declared terms with their weights, for a decoder of `layers` layers."""
    suffixes = ["", *(["_layers"] if layers > 1 else []), "_encoder"]
    suffixes += ["_denoising"] if config.denoising.slots else []
    weights = (config.class_weight, config.l1_weight, config.giou_weight)
    return {
        name + suffix: LossTerm(weight, least_weight=1.0)
        for suffix in suffixes
        for name, weight in zip(NAMES, weights)
    }


def criterion(
    output: DetectorOutput,
    targets: Targets,
    denoising: DenoisingQueries | None,
    config: LossConfig,
) -> Criterion:
    """The terms of the loss of a batch, each a sum and its weight.

    Args:
      denoising: the queries that `output.denoising` answers, or None.

    Raises:
      ConfigError: another config than `LossConfig`, denoising on one side only, or more objects
        than queries.
      BoxFormatError: boxes that are not normalized.
    """
    if not isinstance(config, LossConfig):
        raise ConfigError(
            f"the criterion was given a {type(config).__name__} and needs the LossConfig inside of "
            "it: pass config.loss"
        )
    if (denoising is None) != (output.denoising is None):
        raise ConfigError(
            "the criterion needs the denoising queries exactly where the detector answered some; "
            "pass the same DenoisingQueries to both"
        )
    sets = _stacked(output)
    cost, broken = matching_cost(jax.lax.stop_gradient(sets), targets, config)
    assigned = assign(cost, targets.count)
    sums, overlap = _set_sums(sets, targets, assigned, config)
    objects = jnp.sum(targets.count).astype(jnp.float32)
    found = _matched_terms(sums, objects)
    if denoising is not None and output.denoising is not None:
        found |= _denoising_terms(output.denoising, denoising, targets, config)
    metrics = {
        f"loss_layer/{layer}/{name}": Total(total[layer], objects)
        for name, total in zip(NAMES, sums)
        for layer in range(len(assigned) - 1)
    }
    metrics |= _state_metrics(sets, targets, assigned, overlap, broken)
    return Criterion(found, metrics, assigned)


def _stacked(output: DetectorOutput) -> Predictions:
    """Decoder layers and encoder as `[L + 1, B, Q, ...]`, float32."""
    for predictions in (output.decoder, output.encoder):
        predictions.boxes.require("cxcywh_norm", "the criterion")
    logits = [x.logits.astype(jnp.float32) for x in (output.decoder, output.encoder)]
    boxes = [x.boxes.values.astype(jnp.float32) for x in (output.decoder, output.encoder)]
    return Predictions(
        jnp.concatenate([logits[0], logits[1][None]]),
        cxcywh_norm(jnp.concatenate([boxes[0], boxes[1][None]])),
    )


def _set_sums(
    sets: Predictions,
    targets: Targets,
    assigned: jax.Array,
    config: LossConfig,
    used: jax.Array | None = None,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], jax.Array]:
    """Sums of the three terms `[S]`, and the IoU of the matched queries `[S, B, Q]`.

    Args:
      assigned: `[S, B, Q]`, object of each query, or `FREE`.
      used: `[B, Q]`, queries that count; None: all.
    """
    matched = assigned != FREE
    index = jnp.clip(assigned, 0)
    labels = jnp.take_along_axis(targets.labels[None], index, axis=-1)
    labels = jnp.where(matched, labels, FREE)
    wanted = jnp.take_along_axis(targets.boxes.values[None], index[..., None], axis=-2)
    overlap, giou = iou_and_giou(sets.boxes, Boxes(wanted, None, targets.boxes.format))
    classes = classification_loss(sets.logits, labels, overlap, config)
    if used is not None:
        classes = jnp.where(used[None], classes, 0.0)
    l1 = jnp.sum(jnp.abs(sets.boxes.values - wanted), axis=-1)
    sums = (
        jnp.sum(classes, axis=(1, 2)),
        jnp.sum(jnp.where(matched, l1, 0.0), axis=(1, 2)),
        jnp.sum(jnp.where(matched, 1.0 - giou, 0.0), axis=(1, 2)),
    )
    return sums, jnp.where(matched, overlap, 0.0)


def _matched_terms(
    sums: tuple[jax.Array, jax.Array, jax.Array], objects: jax.Array
) -> dict[str, Total]:
    found = {name: Total(total[-2], objects) for name, total in zip(NAMES, sums)}
    if sums[0].shape[0] > 2:
        found |= {
            f"{name}_layers": Total(jnp.sum(total[:-2]), objects)
            for name, total in zip(NAMES, sums)
        }
    return found | {
        f"{name}_encoder": Total(total[-1], objects) for name, total in zip(NAMES, sums)
    }


def _denoising_terms(
    answers: Predictions, queries: DenoisingQueries, targets: Targets, config: LossConfig
) -> dict[str, Total]:
    """Each query is told its object: nothing is matched."""
    sets = Predictions(
        answers.logits.astype(jnp.float32), cxcywh_norm(answers.boxes.values.astype(jnp.float32))
    )
    answers.boxes.require("cxcywh_norm", "the denoising loss")
    target = jnp.where(queries.used, queries.target, FREE)
    assigned = jnp.broadcast_to(target, sets.logits.shape[:-1])
    sums, _ = _set_sums(sets, targets, assigned, config, queries.used)
    slots = jnp.sum(target != FREE).astype(jnp.float32)
    return {f"{name}_denoising": Total(jnp.sum(total), slots) for name, total in zip(NAMES, sums)}


def _state_metrics(
    sets: Predictions, targets: Targets, assigned: jax.Array, overlap: jax.Array, broken: jax.Array
) -> dict[str, Total]:
    """What the guards watch; see `Criterion.metrics`."""
    one = jnp.ones((), jnp.float32)
    objects = jnp.sum(targets.count).astype(jnp.float32)
    matched = jnp.sum(assigned[-2] != FREE).astype(jnp.float32)
    probability = jnp.mean(jax.nn.sigmoid(sets.logits[-2]))
    invalid = jnp.sum(_invalid(targets, sets.logits.shape[-1])).astype(jnp.float32)
    return {
        "matched_iou": Total(jnp.sum(overlap[-2]), matched),
        "mean_probability": Total(probability, one),
        "nonfinite_costs": Total(broken.astype(jnp.float32), one),
        "unmatched": Total(objects - matched, one),
        "invalid_objects": Total(invalid, one),
    }


def _invalid(targets: Targets, classes: int) -> jax.Array:
    """`[B, M]`: labels outside of the table, objects after padding, boxes off the canvas."""
    values, labels = targets.boxes.values, targets.labels
    centers, sides = values[..., :2], values[..., 2:]
    low, high = centers - sides / 2, centers + sides / 2
    # As a chain of comparisons that must all hold, so that a NaN is found.
    right = jnp.all((sides > 0) & (low >= -EDGE_TOLERANCE) & (high <= 1 + EDGE_TOLERANCE), axis=-1)
    place = jnp.arange(labels.shape[-1]).reshape(1, -1)
    known = (labels >= FREE) & (labels < classes)
    return ~known | (targets.valid & (~right | (place >= targets.count[:, None])))
