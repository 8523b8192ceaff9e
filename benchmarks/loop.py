"""Host cost of the train loop itself: what `training.loop.fit` adds to a bare loop over the step.

The task is a tiny least-squares fit whose computation takes microseconds. In the first pair of rows
that is all, so that the host is the limit: example stream, placement, dispatch, metrics, guards,
flight recorder, progress, a log line every tenth step. In the second pair each step also sleeps on
the device, as a real step would keep it busy, and the host can work ahead meanwhile: what is left
is what a run pays. The aim is less than 2 % of a 50 ms step, 1 ms. The bare loop calls the same
compiled step on a batch that lies on the device and waits at the end only.

Wall and CPU milliseconds per step of this process (all threads), medians over repeats; start, end
and compilation are left out by the difference of a long and a short run.

Run: python benchmarks/loop.py [--steps 1000] [--repeats 3] [--device-ms 5] [--profile]
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
import jax.experimental
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
from training.loss import LossOutput, LossTerm, Total
from training.mesh import Layout, make_mesh
from training.program import Program
from training.source import Sources
from training.stream import ExampleStream
from training.task import Task
from training.verdict import Description, Evaluation, Verdict

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


def pause(milliseconds: float) -> np.ndarray:
    """A device that is busy elsewhere."""
    time.sleep(milliseconds / 1e3)
    return np.zeros((), np.float32)


@dataclasses.dataclass(frozen=True)
class LeastSquares(Task):
    """One term, two parameter arrays in two groups."""

    config: TrainConfig
    device_ms: float
    loss_terms = {"error": LossTerm()}

    def sources(self) -> Sources:
        generator = np.random.default_rng(0)
        x = generator.normal(size=(1024, 8)).astype(np.float32)
        return Sources(Points(x, 0), {"validation": Points(x[:8] + 1, 5000)})

    def init(self, key):
        return {"kernel": 0.1 * jax.random.normal(key, (8, 2)), "bias": jnp.zeros(2)}, None

    def loss(self, params, context, batch, key):
        # Noise: a fit that becomes exact would be stopped by its zero gradient.
        noise = jax.random.normal(key, batch["y"].shape)
        if self.device_ms:
            scalar = jax.ShapeDtypeStruct((), jnp.float32)
            slept = jax.experimental.io_callback(
                lambda _: pause(self.device_ms), scalar, context.applied
            )
            noise = noise + jax.lax.stop_gradient(slept)
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


def run_fit(steps: int, device_ms: float) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        fit(LeastSquares(config(steps), device_ms), Path(folder))


def loop_cost(steps: int, device_ms: float) -> Cost:
    """Per step of `fit`: a long run less a short one."""
    short, long = (
        timed(lambda: run_fit(SHORT, device_ms)),
        timed(lambda: run_fit(SHORT + steps, device_ms)),
    )
    return Cost((long.wall - short.wall) / steps, (long.cpu - short.cpu) / steps)


def bare_cost(steps: int, device_ms: float) -> Cost:
    """Per step of the compiled step alone."""
    settings = config(steps)
    task = LeastSquares(settings, device_ms)
    layout = Layout(make_mesh(settings.mesh))
    with jax.set_mesh(layout.mesh):
        program = Program(task, layout)
        state = program.initial_state()
        stream = ExampleStream(task.sources().train, 0, 8, layout.rows(8), settings.loader)
        batches = layout.put_batches([stream.batch(0)], 8)
        stream.close()

        def go(count: int) -> None:
            nonlocal state
            for _ in range(count):
                state, _ = program.step(state, batches)
            jax.block_until_ready(state.params)

        go(SHORT)
        cost = timed(lambda: go(steps))
    return Cost(cost.wall / steps, cost.cpu / steps)


def median(costs: list[Cost]) -> Cost:
    return Cost(statistics.median(c.wall for c in costs), statistics.median(c.cpu for c in costs))


def profile(steps: int) -> None:
    """Where the main thread spends its time inside `fit`."""
    run_fit(SHORT, 0.0)
    profiler = cProfile.Profile()
    profiler.runcall(run_fit, steps, 0.0)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device-ms", type=float, default=5.0, help="sleep of the busy device")
    parser.add_argument("--profile", action="store_true", help="print a profile of fit instead")
    arguments = parser.parse_args()
    if arguments.profile:
        profile(arguments.steps)
        return
    run_fit(SHORT, 0.0)
    print(f"{'':<34}{'wall ms/step':>14}{'CPU ms/step':>14}")
    for device_ms in (0.0, arguments.device_ms):
        repeats = range(arguments.repeats)
        bare = median([bare_cost(arguments.steps, device_ms) for _ in repeats])
        whole = median([loop_cost(arguments.steps, device_ms) for _ in repeats])
        added = Cost(whole.wall - bare.wall, whole.cpu - bare.cpu)
        share = Cost(100 * added.wall / STEP_MS, 100 * added.cpu / STEP_MS)
        busy = f"device busy {device_ms:g} ms"
        for name, cost in (("bare step", bare), ("fit", whole), ("added by the loop", added)):
            print(f"{f'{name}, {busy}':<34}{cost.wall:>14.3f}{cost.cpu:>14.3f}")
        name = f"share of a {STEP_MS:.0f} ms step"
        print(f"{name:<34}{share.wall:>13.2f}%{share.cpu:>13.2f}%", flush=True)


if __name__ == "__main__":
    main()
