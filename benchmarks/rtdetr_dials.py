"""The two dials of a trained detector: AP and latency by decoder layers and number of queries.

No weight knows how many queries there are, and every decoder layer has heads of its own, so both
can be chosen when the network is used. Latency is that of one image of one batch through network
and choice of detections (`rtdetr.inference.DetectBatch`), compiled, from pixels on the device to
detections on the host; decoding and drawing are not in it. AP is that of the evaluation split.

Run: python benchmarks/rtdetr_dials.py --workdir DIR [--step latest] [--layers 1 2 3]
     [--queries 100 300] [--repeats 50] [--output table.json]
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# This file lies beside the packages that it measures: look for them one folder up.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import jax
import numpy as np

from rtdetr.config import Config
from rtdetr.data.dataset import ClassTable
from rtdetr.evaluation import scored_with
from rtdetr.inference import Weights, best_weights, detect_batch
from training.mesh import Layout
from training.source import Source

WARM_UP = 3  # calls that are not counted


@dataclass(frozen=True)
class Row:
    """One setting of the dials; latencies in ms."""

    layers: int
    queries: int
    ap: float
    ap50: float
    p50: float
    p90: float


def settings(config: Config, layers: Sequence[int], queries: Sequence[int]) -> Iterator[Config]:
    """The config at every setting of the dials."""
    for count in layers:
        for number in queries:
            scoring = dataclasses.replace(config.scoring, layers=count, queries=number)
            yield dataclasses.replace(config, scoring=scoring)


def measured(
    config: Config,
    classes: ClassTable,
    weights: Weights,
    source: Source,
    layout: Layout,
    repeats: int,
) -> Row:
    """AP and latency at one setting."""
    metrics = scored_with(config, classes, weights, source, layout).metrics
    nothing = float("nan")  # without objects there is no AP
    seconds = latencies(config, weights, source[0], repeats)
    p50, p90 = (1000 * np.quantile(seconds, share) for share in (0.5, 0.9))
    return Row(
        config.scoring.layers,
        config.scoring.queries,
        metrics.get("AP", nothing),
        metrics.get("AP50", nothing),
        float(p50),
        float(p90),
    )


def latencies(
    config: Config, weights: Weights, example: dict[str, np.ndarray], repeats: int
) -> np.ndarray:
    """Seconds of each call on one image, `[repeats]`, on the first device."""
    device = jax.devices()[0]
    arguments: Any = jax.device_put(
        jax.tree.map(np.asarray, (weights.params, weights.statistics)), device
    )
    batch = {name: jax.device_put(example[name][None], device) for name in ("image", "content")}
    compiled = jax.jit(detect_batch(config))
    seconds = []
    for _ in range(WARM_UP + repeats):
        start = time.perf_counter()
        jax.tree.map(np.asarray, compiled(*arguments, batch).rows)
        seconds.append(time.perf_counter() - start)
    return np.array(seconds[WARM_UP:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--step", default="latest")
    parser.add_argument("--layers", type=int, nargs="*", help="default: 1 to all")
    parser.add_argument(
        "--queries", type=int, nargs="*", help="default: 1/3, 1 and 2 times as trained"
    )
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--output", type=Path, help="JSON file for the table")
    args = parser.parse_args()

    from training.checkpoint.restore import restored

    program, state, step = restored(args.workdir, args.step)
    task: Any = program.task
    decoder = task.config.model.decoder
    layers = args.layers or range(1, decoder.layers + 1)
    queries = args.queries or [max(decoder.queries // 3, 1), decoder.queries, 2 * decoder.queries]
    source = task.sources().evaluation[task.config.data.eval_split]
    print(f"step {step}, {len(source)} images, {jax.devices()[0].device_kind}")
    print("layers  queries      AP    AP50   p50 ms   p90 ms")
    rows = []
    with jax.set_mesh(program.layout.mesh):
        for config in settings(task.config, list(layers), queries):
            weights = best_weights(state)
            row = measured(config, task.classes, weights, source, program.layout, args.repeats)
            print(
                f"{row.layers:>6}  {row.queries:>7}  {row.ap:.4f}  {row.ap50:.4f}  "
                f"{row.p50:>7.1f}  {row.p90:>7.1f}",
                flush=True,
            )
            rows.append(dataclasses.asdict(row))
    if args.output:
        args.output.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
