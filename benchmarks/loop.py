"""Host cost of the train loop itself: what `training.loop.fit` adds to a bare loop over the step.

The task is a tiny least-squares fit whose device work takes microseconds, so that what remains per
step is the loop: example stream, placement, dispatch, metrics, guards, flight recorder, progress,
log lines every tenth step. The bare loop calls the same compiled step on a batch that lies on the
device. The aim is less than 2 % of a 50 ms step, 1 ms.

Figures are CPU-milliseconds and wall milliseconds per step of this process, medians over repeats;
start, first evaluation and compilation are left out by the difference of a long and a short run.

Run: python benchmarks/loop.py [--steps 2000] [--repeats 3] [--profile]
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import contextlib
import cProfile
import dataclasses
import io
import os
import pstats
import statistics
import sys
import tempfile
import time
from pathlib import Path

# This file lies beside the packages that it measures: look for them one folder up.
sys.path[0] = str(Path(__file__).resolve().parents[1])
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

from training.config import (
    CheckpointConfig,
    Duration,
    EvaluationConfig,
    LogConfig,
    OptimizerConfig,
    TrainConfig,
)
from training.loop import fit
from training.mesh import Layout, make_mesh
from training.program import Program
from training.stream import ExampleStream
from training.task import (
    Description,
    Evaluation,
    LossOutput,
    LossTerm,
    Sources,
    Task,
    Total,
    Verdict,
)

STEP_MS = 50.0  # a step of the size that the share is given for
SHORT = 100  # steps of the run that is subtracted


@dataclasses.dataclass(frozen=True)
class Points:
    """Examples x [8] and y [2] = x W, made beforehand: reading one costs nothing."""

    x: np.ndarray
    start: int
    fingerprint: str = "points"

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"x": self.x[index], "y": self.x[index, :2] * 2}

    def identity(self, index: int) -> str:
        return str(self.start + index)


class LeastSquares(Task):
    """One term, two parameter arrays in two groups."""

    loss_terms = {"error": LossTerm()}

    def sources(self) -> Sources:
        generator = np.random.default_rng(0)
        x = generator.normal(size=(1024, 8)).astype(np.float32)
        return Sources(Points(x, 0), {"validation": Points(x[:8] + 1, 5000)})

    def init(self, key):
        return {"kernel": 0.1 * jax.random.normal(key, (8, 2)), "bias": jnp.zeros(2)}, None

    def loss(self, params, context, batch, key):
        # A drop of noise: a fit that becomes exact would be stopped by its zero gradient.
        noise = jax.random.normal(key, batch["y"].shape)
        error = batch["x"] @ params["kernel"] + params["bias"] - batch["y"] + noise
        return LossOutput({"error": Total(jnp.sum(error**2), jnp.float32(len(error)))}, None)

    def optimizer_groups(self, params):
        return {"kernel": "kernel", "bias": "bias"}

    def evaluate(self, state, source, layout):
        return Evaluation({"norm": float(jnp.sum(state.params["kernel"] ** 2))})

    def describe(self):
        return Description({"all": 18}, 96.0, {"x": ((8,), "float32"), "y": ((2,), "float32")})

    def overfit_verdict(self, before, after):
        return Verdict("overfit", True, "not a model")


def config(steps: int) -> TrainConfig:
    """Everything on, one evaluation and one save at the end."""
    return TrainConfig(
        "benchmark",
        batch_size=8,
        total=Duration(updates=steps),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        evaluation=EvaluationConfig(every=Duration(updates=10**9), at_start=False),
        checkpoint=CheckpointConfig(every=Duration(updates=10**9)),
        log=LogConfig(every=10),
    )


@dataclasses.dataclass(frozen=True)
class Cost:
    """Milliseconds, of wall time and of all threads' CPU time."""

    wall: float
    cpu: float


def timed(function) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return Cost(1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu))


def run_fit(steps: int) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        fit(LeastSquares(), config(steps), Path(folder))


def loop_cost(steps: int) -> Cost:
    """Per step of `fit`: a long run less a short one."""
    short, long = timed(lambda: run_fit(SHORT)), timed(lambda: run_fit(SHORT + steps))
    return Cost((long.wall - short.wall) / steps, (long.cpu - short.cpu) / steps)


def bare_costs(steps: int) -> tuple[Cost, Cost]:
    """Per step: the compiled step alone, and with the metrics of each step read."""
    settings, task = config(steps), LeastSquares()
    layout = Layout(make_mesh(settings.mesh))
    with jax.set_mesh(layout.mesh):
        program = Program(task, settings, layout, steps)
        state = program.initial_state()
        source, rows = task.sources().train, layout.rows(8)
        stream = ExampleStream(source, 0, 8, rows, settings.loader)
        batches = layout.put_batches([stream.batch(0)], 8)
        stream.close()

        def go(count: int, reading: bool) -> None:
            nonlocal state
            for _ in range(count):
                state, read = program.step(state, batches)
                if reading:
                    read()
            jax.block_until_ready(state.params)

        go(SHORT, True)
        costs = [timed(lambda reading=reading: go(steps, reading)) for reading in (False, True)]
    alone, read = (Cost(cost.wall / steps, cost.cpu / steps) for cost in costs)
    return alone, read


def median(costs: list[Cost]) -> Cost:
    return Cost(statistics.median(c.wall for c in costs), statistics.median(c.cpu for c in costs))


def profile(steps: int) -> None:
    """Where the main thread spends its time inside `fit`."""
    run_fit(SHORT)
    profiler = cProfile.Profile()
    profiler.runcall(run_fit, steps)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="print a profile of fit instead")
    arguments = parser.parse_args()
    if arguments.profile:
        profile(arguments.steps)
        return
    run_fit(SHORT)
    bare = [bare_costs(arguments.steps) for _ in range(arguments.repeats)]
    rows = {
        "bare step": median([alone for alone, _ in bare]),
        "bare step, metrics read": median([read for _, read in bare]),
        "training.loop.fit": median([loop_cost(arguments.steps) for _ in range(arguments.repeats)]),
    }
    print(f"{'':<26}{'wall ms/step':>14}{'CPU ms/step':>14}")
    for name, cost in rows.items():
        print(f"{name:<26}{cost.wall:>14.3f}{cost.cpu:>14.3f}")
    whole, bare_step = rows["training.loop.fit"], rows["bare step"]
    wall, cpu = whole.wall - bare_step.wall, whole.cpu - bare_step.cpu
    share = 100 / STEP_MS
    print(f"{'the loop':<26}{wall:>14.3f}{cpu:>14.3f}")
    print(f"{f'share of {STEP_MS:.0f} ms':<26}{wall * share:>13.2f}%{cpu * share:>13.2f}%")


if __name__ == "__main__":
    main()
