"""Training a prior: guess the noise in grids of grasps that are made by rule.

Parameters are those of the U-Net; the model state has the mean grid and the deviations from it, by
which grids are standardized. An example is a grasp; the grids are made on the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from hand_object.prior import evaluation
from hand_object.prior.config import Config
from hand_object.prior.diffusion import grids_of, guess, noisy_grids, standardized, step_weight
from hand_object.prior.grid import JOINTS
from hand_object.prior.model.unet import Unet
from hand_object.prior.schedule import STEPS
from hand_object.prior.source import evaluation_grasps, training_grasps
from hand_object.prior.statistics import grid_statistics
from training.loss import Batch, Context, LossOutput, LossTerm, Total
from training.mesh import Layout
from training.source import Source, Sources
from training.state import TrainState
from training.task import Task
from training.verdict import Description, Evaluation, Verdict

PyTree = Any


def make_task(config: Config) -> PriorTask:
    return PriorTask(config)


def init_unet(key: jax.Array, config: Config) -> PyTree:
    """Parameters; traceable."""
    side, channels = config.grid.hand_size, 1 + JOINTS
    grids = jnp.zeros((1, side, side, side, channels))
    condition = jnp.zeros((1, config.unet.condition))
    return Unet(config.unet).init(key, grids, jnp.zeros(1, jnp.int32), condition)["params"]


@dataclass(frozen=True, eq=False)
class PriorTask(Task):
    """See the module docstring."""

    config: Config

    @property
    def loss_terms(self) -> Mapping[str, LossTerm]:  # type: ignore[override]
        losses = self.config.losses
        return {"object": LossTerm(losses.object), "hand": LossTerm(losses.hand)}

    def sources(self) -> Sources:
        return Sources(training_grasps(self.config), evaluation_grasps(self.config))

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        return init_unet(key, self.config), self.statistics

    @cached_property
    def statistics(self) -> dict[str, jax.Array]:
        """Of the grids; numbers, also while `init` is traced."""
        with jax.ensure_compile_time_eval():
            return grid_statistics(self.config)

    def optimizer_groups(self, params: PyTree) -> PyTree:
        return jax.tree.map(lambda _: "unet", params)

    def loss(self, params: PyTree, context: Context, batch: Batch, key: jax.Array) -> LossOutput:
        config = self.config
        grids = grids_of(batch["joints"], batch["distances"], config.grid)
        clean = standardized(grids, context.model_state)
        # By position in the stream: no draw depends on the mesh or on the micro-batches.
        keys = jax.vmap(lambda p: jax.random.fold_in(context.update_key, p))(batch["position"])
        keys = jax.vmap(lambda k: jax.random.split(k, 3))(keys)
        steps = jax.vmap(lambda k: jax.random.randint(k, (), 0, STEPS))(keys[:, 0])
        noise = jax.vmap(lambda k: jax.random.normal(k, clean.shape[1:]))(keys[:, 1])
        told = jax.vmap(lambda k: jax.random.uniform(k) >= config.unconditional)(keys[:, 2])
        condition = jnp.where(told[:, None], batch["condition"], 0.0)
        noisy = noisy_grids(clean, noise, steps)
        dropout = key if config.unet.dropout else None
        found = guess(params, config.unet, noisy, steps, condition, dropout)
        wanted = noise if config.unet.guesses == "noise" else clean
        square = step_weight(steps, config.unet.guesses) * jnp.square(found - wanted)

        def term(part: jax.Array) -> Total:
            return Total(jnp.sum(part), jnp.float32(part.size))

        terms = {"object": term(square[..., :1]), "hand": term(square[..., 1:])}
        return LossOutput(terms, context.model_state)

    def evaluate(self, state: TrainState, source: Source, layout: Layout) -> Evaluation:
        return evaluation.evaluate(self.config, state, source, layout)

    def describe(self) -> Description:
        config = self.config
        shapes = jax.eval_shape(lambda key: init_unet(key, config), jax.random.key(0))
        count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        voxels = (config.grid.hand_size // config.unet.patch) ** 3
        keys = {
            "joints": ((21, 3), "float32"),
            "distances": ((config.grid.object_size**3,), "float32"),
            "condition": ((config.unet.condition,), "float32"),
        }
        # Two operations per weight and voxel, three passes; deeper levels have fewer voxels.
        return Description({"unet": count}, 6.0 * count * voxels, keys)

    def overfit_verdict(self, before: Evaluation, after: Evaluation) -> Verdict:
        was, now = before.metrics["clean_error_object"], after.metrics["clean_error_object"]
        mean = after.metrics["clean_error_object_of_mean"]
        sentence = (
            f"the error of the object's grid behind the noise went from {was:.3f} to {now:.3f}; "
            f"the mean grid has {mean:.3f}"
        )
        return Verdict("overfit", now < 0.5 * mean, sentence)
