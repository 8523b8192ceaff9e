"""A tiny linear task that the tests of the training core share."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from training.config import Duration, TrainConfig
from training.loss import LossOutput, LossTerm, Total
from training.over_batches import BatchResult, over_batches
from training.program import Program
from training.source import Sources
from training.task import Task, with_config
from training.verdict import Description, Evaluation, Verdict

CONFIG = TrainConfig("toy")


@dataclasses.dataclass(frozen=True)
class ToySource:
    """Examples x [8] and y [2] = x W for a fixed W, and a weight that differs between examples."""

    length: int = 64
    start: int = 0

    @property
    def fingerprint(self) -> str:
        return f"toy-{self.start}-{self.length}"

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        x = np.random.default_rng(self.start + index).normal(size=8).astype(np.float32)
        return {
            "x": x,
            "y": x[:2] * 2,
            "w": np.float32(1 + index % 5),
        }

    def identity(self, index: int) -> str:
        return str(self.start + index)


def predicted(params, x):
    return x @ params["dense"]["kernel"] + params["dense"]["bias"][None]


@dataclasses.dataclass(frozen=True)
class ToyError:
    """Squared error of a batch, each example alike."""

    def __call__(self, params, batch):
        error = jnp.sum((predicted(params, batch["x"]) - batch["y"]) ** 2, axis=-1)
        return BatchResult(sums=jnp.sum(error * batch["weight"]))


@dataclasses.dataclass(frozen=True)
class ToyTask(Task):
    """Weighted least squares: one required term."""

    config: TrainConfig = CONFIG
    loss_terms = {"error": LossTerm()}

    def sources(self) -> Sources:
        return Sources(ToySource(64), {"validation": ToySource(10, start=1000)})

    def init(self, key):
        params = {"dense": {"kernel": jax.random.normal(key, (8, 2)), "bias": jnp.zeros(2)}}
        return params, {"seen": jnp.zeros((), jnp.int32)}

    def predict(self, params, x):
        return predicted(params, x)

    def loss(self, params, context, batch, key):
        error = jnp.sum((self.predict(params, batch["x"]) - batch["y"]) ** 2, axis=-1)
        total = Total(jnp.sum(error * batch["w"]), jnp.sum(batch["w"]))
        seen = context.model_state["seen"] + batch["x"].shape[0]
        return LossOutput({"error": total}, {"seen": seen})

    def optimizer_groups(self, params):
        return jax.tree.map(lambda _: "all", params)

    def evaluate(self, state, source, layout):
        swept = over_batches(ToyError(), (state.params,), source, 8, layout)
        return Evaluation({"error": float(swept.sums) / len(source)})

    def describe(self):
        keys = {"x": ((8,), "float32"), "y": ((2,), "float32"), "w": ((), "float32")}
        return Description({"dense": 18}, 6.0 * 16, keys)

    def overfit_verdict(self, before, after):
        error = after.metrics["error"]
        return Verdict("overfit", error < 1e-2, f"error {error:.3g}, needed below 0.01")


def toy_program(task, config, layout, total=100) -> Program:
    """The program of a task under a config, for a run of `total` updates."""
    config = dataclasses.replace(config, total=Duration(updates=total))
    return Program(with_config(task or ToyTask(), config), layout)


def task_with(config=CONFIG, **attributes) -> ToyTask:
    """The toy task with other attributes or methods (functions without self)."""
    members = {
        name: staticmethod(value) if callable(value) else value
        for name, value in attributes.items()
    }
    return type("ChangedToyTask", (ToyTask,), members)(config)
