"""Ways of sampling maps in deformable attention: time on this CPU, and what a TPU compiler says.

One attention of R50 at 640 × 640: 500 queries, 8 heads of 32 channels, 4 points on each of three
maps (8,400 tokens); forward, and forward with all derivatives.

  python benchmarks/rtdetr_sampling.py [--batch 1] [--rounds 10]     beside torch's grid_sample
  python benchmarks/rtdetr_sampling.py --tpu --batch 8               needs libtpu, runs nothing

CPU columns are the least CPU milliseconds of one thread, the forms in turn. TPU columns are the
compiler's for one v4 chip in bfloat16: operations, bytes, and the time of its fusions by the cycles
that it estimates for them (as in `jepa3d_compile.py`). It estimates nothing for the gathers, sorts
and scatters themselves: the time of "gather" and "packed" lacks them, that of "onehot" has none.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# This file lies beside the packages that it measures: look for them one folder up.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from launch.preflight.compiler import ISOLATED  # noqa: E402
from launch.preflight.figures import clock_hz, figures  # noqa: E402
from launch.preflight.topology import topology  # noqa: E402

os.environ.update(ISOLATED)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from rtdetr.model import deformable_attention  # noqa: E402
from rtdetr.model.deformable_attention import sample_maps  # noqa: E402

SIZES, QUERIES, HEADS, CHANNELS, POINTS = ((80, 80), (40, 40), (20, 20)), 500, 8, 32, 4
METHODS = ("gather", "packed", "onehot")
PASSES = ("forward", "with derivatives")


def case(batch: int) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Values, locations around a box of each query, and weights, of each map."""
    draw = np.random.default_rng(0)
    center = draw.uniform(0.1, 0.9, (batch, QUERIES, 1, 1, 2))
    spread = (batch, QUERIES, HEADS, POINTS)
    values = [draw.normal(size=(batch, h * w, HEADS, CHANNELS)) for h, w in SIZES]
    locations = [center + draw.normal(0, 0.03, (*spread, 2)) for _ in SIZES]
    weights = [draw.uniform(size=spread) for _ in SIZES]
    return jax.tree.map(lambda x: x.astype(np.float32), (values, locations, weights))


def passes(method: str) -> dict[str, Callable[..., Any]]:
    def forward(values, locations, weights):
        return sample_maps(values, SIZES, locations, weights, method)

    def both(values, locations, weights):
        found, pull = jax.vjp(forward, values, locations, weights)
        return found, pull(found)

    return dict(zip(PASSES, (forward, both)))


def torch_passes(values, locations, weights) -> dict[str, Callable[[], Any]]:
    import torch

    torch.set_num_threads(1)
    leaves = jax.tree.map(lambda x: torch.tensor(x).requires_grad_(), (values, locations, weights))
    batch = values[0].shape[0]

    def sampled() -> Any:
        total: Any = 0
        for value, location, weight, (height, width) in zip(*leaves, SIZES):
            grid = value.permute(0, 2, 3, 1).reshape(-1, CHANNELS, height, width)
            at = 2 * location.permute(0, 2, 1, 3, 4).reshape(-1, QUERIES, POINTS, 2) - 1
            read = torch.nn.functional.grid_sample(grid, at, align_corners=False)
            read = read.reshape(batch, HEADS, CHANNELS, QUERIES, POINTS)
            total = total + torch.einsum("bhdqp,bqhp->bqhd", read, weight)
        return total

    def forward() -> None:
        with torch.no_grad():
            sampled()

    def both() -> None:
        total = sampled()
        torch.autograd.grad(total, jax.tree.leaves(leaves), total.detach())

    return dict(zip(PASSES, (forward, both)))


def on_cpu(batch: int, rounds: int) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    arrays = case(batch)
    on_device = jax.device_put(arrays)
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    for method in METHODS:
        for name, function in passes(method).items():
            compiled = jax.jit(function)
            calls[method, name] = lambda f=compiled: jax.block_until_ready(f(*on_device))
    for name, call in torch_passes(*arrays).items():
        calls["torch", name] = call
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds + 1):  # the first one compiles and is never the least
        for key, call in calls.items():
            start = time.process_time()
            call()
            least[key] = min(least[key], 1e3 * (time.process_time() - start))
    print("| CPU ms | " + " | ".join(PASSES) + " |\n|---|---|---|")
    for method in (*METHODS, "torch"):
        print(f"| {method} | " + " | ".join(f"{least[method, name]:.1f}" for name in PASSES) + " |")


def on_tpu(batch: int) -> None:
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(**topology("v4-32").description()).devices
    place = jax.sharding.SingleDeviceSharding(devices[0])
    values, locations, weights = case(batch)
    values = [x.astype(jnp.bfloat16) for x in values]
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        (values, locations, weights),
    )
    deformable_attention.platform = lambda: "tpu"  # what "auto" asks
    print("| TPU | pass | flops | bytes | XLA ms |\n|---|---|---|---|---|")
    for method in (*METHODS, "auto"):
        for name, function in passes(method).items():
            found = figures(jax.jit(function).lower(*shapes).compile(), devices=1)
            milliseconds = 1e3 * found["cycles"] / (clock_hz("TPU v4") or 1.0)
            print(
                f"| {method} | {name} | {found['flops']:.3g} | {found['bytes']:.3g} | "
                f"{milliseconds:.2f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tpu", action="store_true")
    options = parser.parse_args()
    on_tpu(options.batch) if options.tpu else on_cpu(options.batch, options.rounds)


if __name__ == "__main__":
    main()
