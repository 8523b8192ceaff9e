"""A tiny run on several hosts: a sharded state, one jitted update per step, checkpoints.

Usage: python -m tests.pod.worker WORKDIR STEPS [--every N] [--pause S] [--stride N] [--fault NAME]

Prints `step N` after each update and `restored N` on a resume; the tests read these lines.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from training import distributed, stop
from training.checkpoint.store import CheckpointStore
from training.config import CheckpointConfig
from training.state import TrainState, new_state

WIDTH = 64


def main(arguments: list[str]) -> int:
    """Trains to STEPS, or to the common step after a SIGTERM to any host."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir")
    parser.add_argument("steps", type=int)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds per step")
    parser.add_argument("--fault", default="", help="mismatch, private, raise or storage")
    parser.add_argument("--stride", type=int, default=1, help="what a step counts as")
    parser.add_argument("--width", type=int, default=WIDTH)
    args = parser.parse_args(arguments)

    distributed.initialize()
    host = jax.process_index()
    if args.fault == "mismatch":
        distributed.assert_same("config", {"seed": int(host == 1)})
    workdir = f"{args.workdir}-{host}" if args.fault == "private" else args.workdir
    state = sharded_state(args.width)
    store = CheckpointStore(workdir, CheckpointConfig(keep_latest=3))
    start = store.latest()
    if start is not None:
        state, data = store.restore(start, state)
        print(f"restored {start} position {data['examples']}", flush=True)
    stopped = train(args, store, state, start or 0)
    store.close()
    print(f"{'preempted' if stopped else 'done'} latest {store.latest()}", flush=True)
    return 0


def train(args: argparse.Namespace, store: CheckpointStore, state: TrainState, start: int) -> bool:
    """The loop; whether it was asked to stop."""
    for step in range(start + args.stride, args.steps + 1, args.stride):
        state = update(state)
        total = float(jnp.sum(state.params["kernel"]))
        print(f"step {step} sum {total!r}", flush=True)
        stop = distributed.stop_requested()
        if stop or step % args.every == 0 or step == args.steps:
            store.save(step, state, {"examples": step * 8})
            print(f"saving {step}", flush=True)
        if stop:
            return True
        if args.fault == "storage" and step == 3:
            Path(args.workdir, "checkpoints").rename(Path(args.workdir, "gone"))
            Path(args.workdir, "checkpoints").write_text("a file in the way")
        if args.fault == "raise" and jax.process_index() == 1 and step == 3:
            raise RuntimeError("injected")
        time.sleep(args.pause)
    return False


def sharded_state(width: int) -> TrainState:
    """A state with one array split over all devices and the rest replicated."""
    devices = np.array(jax.devices())
    mesh = Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
    split, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec()))

    def create() -> TrainState:
        kernel = jnp.arange(width * width, dtype=jnp.float32).reshape(width, width) / width**2
        return new_state({"kernel": kernel}, None, {"mu": kernel * 0}, None, jax.random.key(7))

    shardings = jax.tree.map(lambda leaf: split if leaf.ndim else whole, jax.eval_shape(create))
    return jax.jit(create, out_shardings=shardings)()


def _update(state: TrainState) -> TrainState:
    """Not learning, but it depends on every array, the step and the key."""
    noise = jax.random.normal(jax.random.fold_in(state.key, state.step), ())
    mu = {"mu": 0.9 * state.opt_state["mu"] + 0.1 * state.params["kernel"] * noise}
    params = {"kernel": state.params["kernel"] - 0.01 * mu["mu"]}
    return TrainState(
        state.step + 1, state.skipped, params, mu, state.ema, state.model_state, state.key
    )


update = jax.jit(_update, donate_argnums=0)


if __name__ == "__main__":
    with stop.listening(stop.ASK, "worker"):
        code = distributed.exit_hook(lambda: main(sys.argv[1:]))
    if code:
        distributed.leave(code)
