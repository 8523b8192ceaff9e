"""The commands of podvision with the toy task as a system, long in one phase that the tests choose.

Usage: python -m tests.pod.stopped_run PHASE train --config ... --workdir ...

Prints `in PHASE` when the phase has begun and stays in it for a while. The system has refreshes
that matter to the loss, so that one too many or too few shows.
"""

from __future__ import annotations

import dataclasses
import fcntl
import functools
import hashlib
import importlib.machinery
import sys
import termios
import time
import types

import jax

from tests.training.toy import ToySource, ToyTask
from training import registry
from training.capabilities import Cadence, Refreshable
from training.config import TrainConfig
from training.source import Sources

SYSTEM = "toy_system"
RECIPE = """
def get_config(arg=""):
    return {
        "system": "toy_system",
        "batch_size": 8,
        "total": {"updates": 24},
        "optimizer": {"learning_rate": 0.05},
        "evaluation": {"every": {"updates": 7}},
        "checkpoint": {"every": {"updates": 9}},
        "log": {"every": 1},
        "loader": {"workers": 1},
    }
"""
SECONDS = 0.7  # in a phase, after the line that says so
FOREVER = 60.0  # longer than a test waits


@dataclasses.dataclass(frozen=True)
class StoppedTask(ToyTask, Refreshable):
    """The toy task whose parameters shrink at each refresh."""

    refresh_cadence = Cadence(every=5)

    def sources(self) -> Sources:
        return Sources(StoppedSource(64), {"validation": ToySource(40, start=1000)})

    def loss(self, params, context, batch, key):
        phase.enter("compile", in_native_code)
        output = super().loss(params, context, batch, key)
        if phase.name == "own-program":  # each host traces another number
            error = output.terms["error"]
            terms = {"error": error._replace(sum=error.sum * (1 + jax.process_index()))}
            return dataclasses.replace(output, terms=terms)
        return output

    def evaluate(self, state, source, layout):
        phase.enter("evaluation", time.sleep)
        return super().evaluate(state, source, layout)

    def refresh(self, state, context, batch):
        params = jax.tree.map(lambda leaf: 0.9 * leaf, state.params)
        return dataclasses.replace(state, params=params), {"shrunk": 1.0 + 0.0 * state.step}


class StoppedSource(ToySource):
    """Waits for an example that never comes, in the phase `data`."""

    def __getitem__(self, index: int):
        if phase.name == "data" and phase.examples == 40:
            phase.enter("data", lambda seconds: time.sleep(FOREVER))
        phase.examples += 1
        return super().__getitem__(index)


class Phase:
    """The phase that takes long, once."""

    def __init__(self, name: str):
        self.name, self.entered, self.examples = name, False, 0

    def enter(self, name: str, wait) -> None:
        """Says that the phase has begun, and waits; nothing in another phase."""
        if name == self.name and not self.entered:
            self.entered = True
            print(f"in {name}", flush=True)
            wait(SECONDS)

    def prolong(self, owner: type, method: str, name: str) -> None:
        """Makes a method take longer, before and after what it does."""
        original = getattr(owner, method)

        @functools.wraps(original)
        def longer(*args, **kwargs):
            self.enter(name, time.sleep)
            result = original(*args, **kwargs)
            if name == self.name:
                time.sleep(SECONDS / 2)
            return result

        setattr(owner, method, longer)


phase = Phase("")


def in_native_code(seconds: float) -> None:
    """Does not come back to Python for about so long, as a compilation does not."""
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", int(1_500_000 * seconds))


def register() -> None:
    """Makes `toy_system` a system of this process."""
    package = types.ModuleType(SYSTEM)
    package.__path__ = []
    package.__spec__ = importlib.machinery.ModuleSpec(SYSTEM, None, is_package=True)
    config, task = types.ModuleType(f"{SYSTEM}.config"), types.ModuleType(f"{SYSTEM}.task")
    config.Config = TrainConfig  # type: ignore[attr-defined]
    task.make_task = StoppedTask  # type: ignore[attr-defined]
    sys.modules |= {SYSTEM: package, config.__name__: config, task.__name__: task}
    if SYSTEM not in registry.SYSTEMS:
        registry.SYSTEMS = (*registry.SYSTEMS, SYSTEM)


def prolong(name: str) -> None:
    """Chooses the phase that takes long in this process."""
    from training.checkpoint.store import CheckpointReader, CheckpointStore
    from training.program import Program

    phase.name = name
    phase.prolong(CheckpointReader, "restore", "restore")
    phase.prolong(CheckpointStore, "save", "save")
    phase.prolong(Program, "refresh", "refresh")
    phase.prolong(Program, "step", "update")
    compile_lowered = jax.stages.Lowered.compile

    def compile_for_long(lowered, *args, **kwargs):
        phase.enter("compiler", lambda seconds: in_native_code(FOREVER))
        return compile_lowered(lowered, *args, **kwargs)

    jax.stages.Lowered.compile = compile_for_long  # type: ignore[method-assign]
    load = registry.load_config

    def load_config(*args):
        phase.enter("start", time.sleep)
        return load(*args)

    registry.load_config = load_config


if __name__ == "__main__":
    if sys.stdin.isatty():
        fcntl.ioctl(sys.stdin, termios.TIOCSCTTY, 0)
    from tests.pod import stopped_run  # this module, under the name by which others know it

    stopped_run.register()
    stopped_run.prolong(sys.argv.pop(1))
    from launch.cli import start

    start()
