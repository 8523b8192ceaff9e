"""The golden values of a small RT-DETR as inputs of the criterion, and small random ones."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from rtdetr.boxes import cxcywh_norm
from rtdetr.targets import DenoisingQueries, DetectorOutput, Predictions, Targets

CLASSES, SLOTS = 80, 28
LAYERS = 3


def golden_values(data_root):
    """Every array of the reference."""
    return dict(np.load(data_root / "detector" / "reference" / "tiny_rtdetr_reference.npz"))


def golden_targets(values):
    boxes, labels = values["gt_boxes_cxcywh_norm"], values["gt_labels_padded_minus1"]
    return Targets(cxcywh_norm(jnp.asarray(boxes)), jnp.asarray(labels))


def predictions(logits, boxes):
    return Predictions(jnp.asarray(logits), cxcywh_norm(jnp.asarray(boxes)))


def golden_output(values, mode):
    """`mode`: "eval", or "dn" where denoising queries stand before the others."""
    logits, boxes = values[f"{mode}/dec_logits"], values[f"{mode}/dec_boxes"]
    first = SLOTS if mode == "dn" else 0
    return DetectorOutput(
        decoder=predictions(logits[:, :, first:], boxes[:, :, first:]),
        encoder=predictions(values[f"{mode}/enc_topk_logits"], values[f"{mode}/enc_topk_boxes"]),
        denoising=predictions(logits[:, :, :first], boxes[:, :, :first]) if first else None,
        selected=jnp.asarray(values["eval/topk_index"], jnp.int32),
    )


def golden_denoising(values):
    """Every slot counts, as in the reference, where padding teaches what is nothing."""
    labels = values["gt_labels_padded_minus1"]
    target = np.full((2, SLOTS), -1, np.int32)
    for image in range(2):
        objects = int((labels[image] >= 0).sum())
        slots = values[f"dn/positive_idx_{image}"]
        target[image, slots] = np.tile(np.arange(objects), len(slots) // objects)
    return DenoisingQueries(
        classes=jnp.asarray(values["dn/query_class"]),
        boxes_logit=jnp.asarray(values["dn/query_box_unact"]),
        target=jnp.asarray(target),
        used=jnp.ones((2, SLOTS), bool),
        allowed=jnp.asarray(~values["dn/attn_mask_blocked"]),
    )


def random_boxes(draw, *shape):
    """Boxes inside of the canvas."""
    sides = draw.uniform(0.05, 0.5, (*shape, 2))
    centers = sides / 2 + draw.uniform(0, 1, (*shape, 2)) * (1 - sides)
    return np.concatenate([centers, sides], -1).astype(np.float32)


def random_targets(draw, counts, objects, classes):
    """Targets with `counts` objects, padded to `objects`."""
    labels = draw.integers(0, classes, (len(counts), objects)).astype(np.int32)
    valid = np.arange(objects) < np.asarray(counts)[:, None]
    boxes = np.where(valid[..., None], random_boxes(draw, len(counts), objects), 0.0)
    labels = np.where(valid, labels, -1)
    return Targets(cxcywh_norm(jnp.asarray(boxes, jnp.float32)), jnp.asarray(labels, jnp.int32))


def random_output(draw, layers, images, queries, classes):
    def some(*lead):
        logits = draw.normal(-2, 2, (*lead, images, queries, classes)).astype(np.float32)
        return predictions(logits, random_boxes(draw, *lead, images, queries))

    selected = jnp.zeros((images, queries), jnp.int32)
    return DetectorOutput(some(layers), some(), None, selected)
