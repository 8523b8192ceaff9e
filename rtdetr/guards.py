"""What an RT-DETR run checks: its boxes, its first losses, and costs that are no numbers.

The first batch is looked at on the host, where a wrong box can be shown; every later one is counted
on the device (`Criterion.metrics`) and watched here. The limits of the first losses hold for one
set of predictions, because a recipe may have any number of decoder layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from rtdetr.config import Config
from rtdetr.losses.criterion import EDGE_TOLERANCE
from training.verdict import Verdict, Watch

NAMES = ("boxes", "frozen-backbone", "first-loss", "class-prior", "matching-cost")
# Largest term of one set before the first update, without its weight. An untrained network has 0.3
# (l1), 1.1 (class) and 0.9 (giou) on COCO; pixel boxes give above 200, a missing prior above 100,
# and 1 - GIoU of boxes that are some cannot exceed 2.
LIMITS = {
    "l1": (4.0, "are the boxes not normalized?"),
    "class": (20.0, "is the prior of the classes missing?"),
    "giou": (2.25, "are boxes no numbers or turned around?"),
}
# Of the whole loss, with 13 sets: 35 to 60 is right; each set adds as much.
TOTAL_LIMITS, TOTAL_SETS = (20.0, 90.0), 13
# Of the mean probability to the prior, either way. The heads' random weights move the logit of a
# class by 0.6 (one standard deviation), and with one class nothing averages it; a missing prior
# gives one half, 50 times as much as 0.01.
PRIOR_FACTOR = 8.0
FIRST_UPDATES = 3
PATIENCE = 10  # updates in a row with broken costs until the run is stopped


def of_start(config: Config, classes: int, batch: Mapping[str, Any]) -> list[Verdict]:
    """Before the first update.

    Args:
      batch: global arrays; `boxes` `[B, M, 4]`, `labels` `[B, M]`. Every host looks at all of them,
        so that all come to one verdict.
    """
    boxes, labels = _whole(batch["boxes"]), _whole(batch["labels"])
    return [boxes_verdict(boxes, labels, classes), backbone_verdict(config)]


def _whole(array: Any) -> np.ndarray:
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def backbone_verdict(config: Config) -> Verdict:
    """Fixed norms and a fixed stem must be those of weights that were trained before."""
    backbone = config.model.backbone
    parts = {"norms": backbone.freeze_norm, "stem": backbone.freeze_stem}
    fixed = [name for name, frozen in parts.items() if frozen]
    if not fixed or config.checkpoint.init_from is not None:
        return Verdict("frozen-backbone", True, "nothing is fixed at its random start")
    sentence = (
        f"the {' and '.join(fixed)} of the backbone are fixed at their random start and can never "
        "learn: start from weights (podvision import rtdetr, then config.checkpoint.init_from), or "
        "set config.model.backbone.freeze_norm and freeze_stem to False"
    )
    return Verdict("frozen-backbone", False, sentence)


def watches(config: Config) -> Sequence[Watch]:
    """The guards over the updates of a run."""
    layers = config.model.decoder.layers
    denoising = layers if config.loss.denoising.slots else 0
    # Weights that were taken over have classes of their own, and may begin with any small loss.
    fresh = config.checkpoint.init_from is None
    found: list[Watch] = [InvalidBoxes(), MatchingCost(), FirstLoss(layers, denoising, fresh)]
    return [*found, ClassPrior(config.model.decoder.prior)] if fresh else found


def boxes_verdict(boxes: np.ndarray, labels: np.ndarray, classes: int) -> Verdict:
    """Whether the objects of a batch can be trained on; names the first one that cannot.

    Args:
      boxes: `[B, M, 4]` `cxcywh_norm`.
      labels: `[B, M]`, -1 for padding.
      classes: K.
    """
    valid = labels >= 0
    count = valid.sum(axis=-1, keepdims=True)
    problems = (
        ((labels < -1) | (labels >= classes), _wrong_label),
        (valid & (np.arange(labels.shape[-1]) >= count), _padding_first),
        (valid & ~np.isfinite(boxes).all(axis=-1), _not_finite),
        (valid & (boxes > 1 + EDGE_TOLERANCE).any(axis=-1), _too_large),
        (valid & (boxes < -EDGE_TOLERANCE).any(axis=-1), _negative),
        (valid & (boxes[..., 2:] <= 0).any(axis=-1), _flat),
        (valid & _outside(boxes), _off_canvas),
    )
    for wrong, sentence in problems:
        if wrong.any():
            image, place = (int(i) for i in np.argwhere(wrong)[0])
            where = f"object {place} of example {image} of the first batch"
            said = sentence(boxes[image, place], int(labels[image, place]), classes)
            return Verdict("boxes", False, f"{where} {said} ({wrong.sum()} such in the batch)")
    sentence = f"{valid.sum()} boxes of the first batch lie on their canvas, with known classes"
    return Verdict("boxes", True, sentence)


def _wrong_label(box: np.ndarray, label: int, classes: int) -> str:
    del box
    cause = "a background class, or ids that start at 1" if label == classes else "raw category ids"
    return (
        f"has the label {label}, but labels go from 0 to {classes - 1} (-1 is padding): {cause}; "
        "prepare the data again, which makes labels from class names"
    )


def _padding_first(box: np.ndarray, label: int, classes: int) -> str:
    del box, label, classes
    return "stands behind padding; objects must come first and padding (label -1) last"


def _not_finite(box: np.ndarray, label: int, classes: int) -> str:
    del label, classes
    return f"has the box {_listed(box)}, which is no number; remove or correct the annotation"


def _too_large(box: np.ndarray, label: int, classes: int) -> str:
    del label, classes
    largest = float(box.max())
    cause = "pixel boxes" if largest > 2 else "corners in place of a center and sides"
    return f"has the box {_listed(box)}, max {largest:.4g} > 1: {cause}; use Boxes.normalized()"


def _negative(box: np.ndarray, label: int, classes: int) -> str:
    del label, classes
    return (
        f"has the box {_listed(box)} with a negative number: a center off the canvas, or a right "
        "edge left of the left one; clip boxes to their canvas"
    )


def _flat(box: np.ndarray, label: int, classes: int) -> str:
    del label, classes
    return f"has the box {_listed(box)} without area; leave such objects out"


def _off_canvas(box: np.ndarray, label: int, classes: int) -> str:
    del label, classes
    return (
        f"has the box {_listed(box)}, which leaves the canvas: corners in place of a center and "
        "sides, or boxes that were normalized by another size; use Boxes.normalized()"
    )


def _outside(boxes: np.ndarray) -> np.ndarray:
    low = boxes[..., :2] - boxes[..., 2:] / 2
    high = boxes[..., :2] + boxes[..., 2:] / 2
    return np.any((low < -EDGE_TOLERANCE) | (high > 1 + EDGE_TOLERANCE), axis=-1)


def _listed(box: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in box) + ")"


class InvalidBoxes:
    """Objects that no right data has, in any batch."""

    name = "boxes"
    promise = "all boxes of every batch lay on their canvas, with known classes"

    def check(self, step: int, metrics: Mapping[str, float]) -> Verdict | None:
        found = metrics.get("invalid_objects", 0.0)
        if not found:
            return None
        sentence = (
            f"{found:g} objects of the batch of step {step} have a box that is not inside of the "
            "canvas (pixel boxes?), a label outside of the class table, or stand behind padding"
        )
        return Verdict(self.name, False, sentence)


class MatchingCost:
    """Costs that are no numbers: noted when they begin, the end of the run when they stay."""

    name = "matching-cost"
    promise = "every cost of the matching was a number"

    def __init__(self):
        self.run = 0

    def check(self, step: int, metrics: Mapping[str, float]) -> Verdict | None:
        broken = metrics.get("nonfinite_costs", 0.0)
        self.run = self.run + 1 if broken else 0
        if self.run not in (1, PATIENCE):
            return None
        sentence = (
            f"{broken:g} costs between queries and objects are not finite at step {step}, for "
            f"{self.run} updates in a row: predictions have overflowed; these queries are matched "
            "last. Lower the learning rate, or train in bfloat16 or float32"
        )
        return Verdict(self.name, False, sentence, warning=self.run < PATIENCE)


class FirstLoss:
    """The mean of the first updates lies where that of an untrained, sound detector does."""

    name = "first-loss"
    promise = "the first losses were those of a sound detector"

    def __init__(self, layers: int, denoising: int, fresh: bool):
        """Sets of the decoder and of denoising queries; `fresh`: nothing was trained before."""
        self.parts = {"": 1, "_layers": layers - 1, "_encoder": 1, "_denoising": denoising}
        self.sets, self.fresh = layers + 1 + denoising, fresh
        self.updates, self.sums = 0, dict[str, float]()

    def check(self, step: int, metrics: Mapping[str, float]) -> Verdict | None:
        """Looks at the first updates of a run that was not resumed."""
        if step > FIRST_UPDATES:
            return None
        self.updates += 1
        for name in ("loss", *(f"loss/{term}{part}" for term in LIMITS for part in self.parts)):
            self.sums[name] = self.sums.get(name, 0.0) + metrics.get(name, 0.0)
        return self._term_verdict(step) or self._total_verdict(step)

    def _term_verdict(self, step: int) -> Verdict | None:
        for term, (limit, cause) in LIMITS.items():
            for part, sets in self.parts.items():
                value = self.sums[f"loss/{term}{part}"] / self.updates / max(sets, 1)
                if not value <= limit:  # and not `value > limit`, which lets a NaN pass
                    sentence = (
                        f"the loss {term}{part} is {value:.4g} for each set of predictions at step "
                        f"{step}, and that of a sound network is below {limit:g}: {cause}"
                    )
                    return Verdict(self.name, False, sentence)
        return None

    def _total_verdict(self, step: int) -> Verdict | None:
        if self.updates < FIRST_UPDATES:
            return None
        value = self.sums["loss"] / self.updates
        low, high = (limit * self.sets / TOTAL_SETS for limit in TOTAL_LIMITS)
        if (low <= value or not self.fresh) and value <= high:
            return None
        sentence = (
            f"the loss is {value:.4g} over the first {self.updates} updates up to step {step}; "
            f"{self.sets} sets of predictions of a sound network give {low:.3g} to {high:.3g}: "
            "are there boxes in the images, and are the weights of the loss meant?"
        )
        return Verdict(self.name, False, sentence, warning=True)


class ClassPrior:
    """An untrained network gives every class the small probability that was asked for."""

    name = "class-prior"
    promise = "the classes started at their prior"

    def __init__(self, prior: float):
        self.prior = prior

    def check(self, step: int, metrics: Mapping[str, float]) -> Verdict | None:
        found = metrics.get("mean_probability", math.nan)
        # As one chain that must hold, so that a NaN does not pass.
        if step != 1 or self.prior / PRIOR_FACTOR <= found <= self.prior * PRIOR_FACTOR:
            return None
        sentence = (
            f"the mean probability of all classes is {found:.4f} before the first update and "
            f"should be about {self.prior:g}: the bias of the class heads must start at "
            f"log(p / (1 - p)), here {math.log(self.prior / (1 - self.prior)):.3f}"
        )
        return Verdict(self.name, False, sentence)
