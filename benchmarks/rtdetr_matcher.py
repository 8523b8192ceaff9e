"""Matching of RT-DETR: ours inside of jit against a scipy loop and the matcher of transformers.

16 images with as many objects as those of COCO (1 to 37, mean 7), 300 queries, 7 sets of
predictions (6 decoder layers and the encoder). Two parts are timed:

* `assignment`: from finished cost matrices in memory to matched pairs; ours one problem after the
  other, ours in lockstep, and `scipy.optimize.linear_sum_assignment` over the same matrices.
* `matching`: from logits and boxes to matched pairs: ours, and `RTDetrHungarianMatcher` of the
  transformers package, called once for each set as its loss does.

All forms are run in turn, several rounds; minimum and median of the rounds are printed, and the
least CPU time of all threads, because the machine may be busy. Costs are those of random
predictions, some of which lie near an object.

Run: python benchmarks/rtdetr_matcher.py [--rounds 20] [--images 16] [--threads 1]
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

# This file lies beside the packages that it measures: look for them one folder up.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from rtdetr.boxes import cxcywh_norm
from rtdetr.config import LossConfig
from rtdetr.losses.assignment import assign
from rtdetr.losses.matching_cost import matching_cost
from rtdetr.targets import Predictions, Targets

SETS, QUERIES, CLASSES, OBJECTS = 7, 300, 80, 100
CONFIG = LossConfig()


def some_boxes(draw, *shape: int) -> np.ndarray:
    sides = draw.uniform(0.02, 0.5, (*shape, 2))
    centers = sides / 2 + draw.uniform(0, 1, (*shape, 2)) * (1 - sides)
    return np.concatenate([centers, sides], -1).astype(np.float32)


def case(images: int) -> tuple[Predictions, Targets]:
    """Random predictions and targets, with numbers of objects like those of COCO."""
    draw = np.random.default_rng(0)
    counts = np.clip(draw.geometric(1 / 7, images), 1, 37)
    counts[0] = 37
    labels = draw.integers(0, CLASSES, (images, OBJECTS)).astype(np.int32)
    labels[np.arange(OBJECTS) >= counts[:, None]] = -1
    wanted = some_boxes(draw, images, OBJECTS)
    boxes = some_boxes(draw, SETS, images, QUERIES)
    boxes[:, :, :OBJECTS] = 0.8 * wanted + 0.2 * boxes[:, :, :OBJECTS]
    logits = draw.normal(-4, 1, (SETS, images, QUERIES, CLASSES)).astype(np.float32)
    targets = Targets(cxcywh_norm(jnp.asarray(wanted)), jnp.asarray(labels))
    return Predictions(jnp.asarray(logits), cxcywh_norm(jnp.asarray(boxes))), targets


def scipy_loop(costs: np.ndarray, counts: np.ndarray) -> None:
    for one_set in costs:
        for cost, count in zip(one_set, counts):
            linear_sum_assignment(cost[:count])


def transformers_matcher(predictions: Predictions, targets: Targets, threads: int) -> Callable:
    """The matcher as their loss calls it: once for each set, on tensors made before."""
    import torch
    from transformers import RTDetrConfig
    from transformers.loss.loss_rt_detr import RTDetrHungarianMatcher

    torch.set_num_threads(threads)
    matcher = RTDetrHungarianMatcher(RTDetrConfig())
    logits = torch.tensor(np.asarray(predictions.logits))
    boxes = torch.tensor(np.asarray(predictions.boxes.values))
    wanted = [
        {
            "class_labels": torch.tensor(np.asarray(labels[:count])).long(),
            "boxes": torch.tensor(np.asarray(values[:count])),
        }
        for values, labels, count in zip(
            targets.boxes.values, targets.labels, np.asarray(targets.count)
        )
    ]

    def match() -> None:
        for one_logits, one_boxes in zip(logits, boxes):
            matcher({"logits": one_logits, "pred_boxes": one_boxes}, wanted)

    return match


def forms(images: int, threads: int) -> dict[str, Callable[[], object]]:
    """Name -> a call that ends when its result is there."""
    predictions, targets = case(images)
    cost = jax.jit(lambda p, t: matching_cost(p, t, CONFIG)[0])(predictions, targets)
    on_host, counts = np.asarray(cost), np.asarray(targets.count)
    count = targets.count
    print(f"{counts.sum()} objects on {images} images, most {counts.max()}; {jax.devices()[0]}")

    def whole(p, t):
        return assign(matching_cost(p, t, CONFIG)[0], t.count)

    matching = jax.jit(whole)
    found: dict[str, Callable[[], object]] = {}
    for name, batched in (("one after the other", False), ("in lockstep", True)):
        solve = jax.jit(lambda c, n, b=batched: assign(c, n, batched=b))
        found[f"assignment, ours {name}"] = lambda f=solve: f(cost, count).block_until_ready()
    found["assignment, scipy loop"] = lambda: scipy_loop(on_host, counts)
    found["matching, ours"] = lambda: matching(predictions, targets).block_until_ready()
    found["matching, transformers"] = transformers_matcher(predictions, targets, threads)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()
    measured = forms(arguments.images, arguments.threads)
    times: dict[str, list[float]] = {name: [] for name in measured}
    work: dict[str, list[float]] = {name: [] for name in measured}
    for call in measured.values():
        call()  # compiles
    for _ in range(arguments.rounds):
        for name, call in measured.items():
            start, worked = time.perf_counter(), time.process_time()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
            work[name].append(1e3 * (time.process_time() - worked))
    print(f"{'ms of ' + str(arguments.rounds) + ' rounds':36s}{'min':>9s}{'median':>9s}{'CPU':>9s}")
    for name, values in times.items():
        print(f"{name:36s}{min(values):9.2f}{np.median(values):9.2f}{min(work[name]):9.2f}")
    ours, theirs = (f"matching, {name}" for name in ("ours", "transformers"))
    print(
        f"transformers over ours: {min(times[theirs]) / min(times[ours]):.2f} (min), "
        f"{np.median(times[theirs]) / np.median(times[ours]):.2f} (median), "
        f"{min(work[theirs]) / min(work[ours]):.2f} (CPU)"
    )


if __name__ == "__main__":
    main()
