"""RT-DETR R50 against transformers': forward, and forward and backward with the loss.

Both networks hold the same random weights and see the same images; logits are compared first. The
forward pass is that of inference. The training pass goes from images to all gradients: denoising
queries, network, matching and losses with 7 objects an image; norms of the backbone are frozen and
the others use the batch, as published.

Both run in turn, several rounds; the least wall time and the least CPU time of all threads are
printed, and their quotients. On a machine that does other work, use `--threads 1` and look at the
CPU times: two threads of torch that wait for each other count as work.

Run: python benchmarks/rtdetr.py [--batch 1] [--rounds 5] [--threads 1] [--only forward]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

# This file lies beside the packages that it measures: look for them one folder up.
sys.path[0] = str(Path(__file__).resolve().parents[1])
os.environ.setdefault("JAX_PLATFORMS", "cpu")

CLASSES, OBJECTS = 80, 7
Call = Callable[[], Any]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--height", type=int, default=640)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--only", choices=("forward", "training"))
    return parser.parse_args()


def limit_threads(count: int) -> None:
    """Before either library starts its threads; XLA takes as many as there are cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-count:])
    import torch

    torch.set_num_threads(count)


def their_network() -> Any:
    """RT-DETR R50 of transformers, with random weights of a usual size."""
    import torch
    from transformers import RTDetrConfig, RTDetrForObjectDetection

    torch.manual_seed(0)
    config = RTDetrConfig(num_labels=CLASSES)  # pyright: ignore - taken by the class above it
    model = RTDetrForObjectDetection(config).eval()
    with torch.no_grad():
        for name, array in model.state_dict().items():
            # Their norms start near zero, which would leave nothing to compare.
            if "norm" in name and name.endswith(".weight"):
                array.uniform_(0.5, 1.0)
            elif name.endswith("convolution.weight") or name.endswith("conv.weight"):
                array.normal_(0, (1.0 / array[0].numel()) ** 0.5)
    return model


def their_calls(model: Any, images: Any, labels: Any, boxes: Any) -> dict[str, Call]:
    import torch

    x = torch.tensor(images).permute(0, 3, 1, 2).float() / 255
    targets = [
        {"class_labels": torch.tensor(one).long(), "boxes": torch.tensor(box)}
        for one, box in zip(labels, boxes)
    ]

    def forward() -> Any:
        model.eval()
        with torch.no_grad():
            return model(x).logits.numpy()

    def training() -> Any:
        model.train()
        model.zero_grad()
        model(x, labels=targets).loss.backward()

    return {"forward": forward, "training": training}


def our_calls(model: Any, images: Any, labels: Any, boxes: Any) -> dict[str, Call]:
    import jax
    import jax.numpy as jnp

    from rtdetr.boxes import cxcywh_norm
    from rtdetr.config import (
        BackboneConfig,
        DecoderConfig,
        DenoisingConfig,
        LossConfig,
        ModelConfig,
    )
    from rtdetr.denoising import make_queries
    from rtdetr.losses.criterion import criterion, terms
    from rtdetr.model.detector import detect
    from rtdetr.targets import Targets
    from rtdetr.weights.names import entries, to_tree

    # Theirs selects tokens without an anchor, too, and has gradients of the stem.
    backbone, decoder = BackboneConfig(freeze_stem=False), DecoderConfig(select_invalid=True)
    config, loss = ModelConfig(backbone=backbone, decoder=decoder), LossConfig()
    theirs = model.state_dict()
    tree = to_tree({e.path: e.to_ours(theirs[e.name].numpy()) for e in entries(config)})
    params, statistics, images, labels, boxes = jax.device_put(
        (tree["params"], tree["statistics"], images, labels, boxes)
    )
    declared = terms(loss, config.decoder.layers)

    @jax.jit
    def forward(params, statistics, images):
        return detect(config, params, statistics, images, train=False)[0].decoder.logits[-1]

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def training(params, statistics, images, labels, boxes):
        targets = Targets(cxcywh_norm(boxes), labels)
        keys = jax.random.split(jax.random.key(0), images.shape[0])
        noise = make_queries(keys, targets, DenoisingConfig(), CLASSES, config.decoder.queries)
        output, moved = detect(config, params, statistics, images, train=True, denoising=noise)
        found = criterion(output, targets, noise, loss).terms
        total: Any = sum(declared[name].coefficient * found[name].mean() for name in found)  # pyright: ignore
        return jnp.asarray(total), moved

    return {
        "forward": lambda: jax.block_until_ready(forward(params, statistics, images)),
        "training": lambda: jax.block_until_ready(
            training(params, statistics, images, labels, boxes)
        ),
    }


def measure(calls: dict[str, Call], rounds: int) -> dict[str, tuple[float, float]]:
    """Least wall and CPU seconds of each call, which take turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for round_ in range(rounds + 1):
        for name, call in calls.items():
            start, worked = time.perf_counter(), time.process_time()
            call()
            spent = time.perf_counter() - start, time.process_time() - worked
            if round_:  # the first one compiles
                times[name].append(spent)
    return {
        name: (min(w for w, _ in spent), min(c for _, c in spent)) for name, spent in times.items()
    }


def main() -> None:
    options = arguments()
    limit_threads(options.threads)
    import numpy as np

    draw = np.random.default_rng(0)
    shape = (options.batch, options.height, options.width, 3)
    images = draw.integers(0, 256, shape).astype(np.uint8)
    labels = draw.integers(0, CLASSES, (options.batch, OBJECTS)).astype(np.int32)
    boxes = draw.uniform(0.1, 0.5, (options.batch, OBJECTS, 4)).astype(np.float32)
    model = their_network()
    theirs = their_calls(model, images, labels, boxes)
    ours = our_calls(model, images, labels, boxes)
    wanted = theirs["forward"]()
    difference = np.abs(np.asarray(ours["forward"]()) - wanted)
    # Tokens whose scores are equal but for rounding become queries in another order.
    print(
        f"logits up to {np.abs(wanted).max():.1f}; median difference {np.median(difference):.0e}, "
        f"{np.mean(difference > 1e-3):.1%} differ by more than 0.001"
    )
    for what in ("forward", "training") if options.only is None else (options.only,):
        found = measure({"ours": ours[what], "theirs": theirs[what]}, options.rounds)
        for name, (wall, work) in found.items():
            print(
                f"{what:9s} batch {options.batch} {name:7s}{wall:8.3f} s{work:8.3f} CPU-s",
                flush=True,
            )
        wall, work = (b / a for a, b in zip(found["ours"], found["theirs"]))
        print(f"{what:9s} batch {options.batch} theirs over ours: {wall:.2f} wall, {work:.2f} CPU")


if __name__ == "__main__":
    main()
