"""Weights of another program as the checkpoint of step 0 of a work folder."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from rtdetr.data.dataset import ClassTable
from rtdetr.task import DetectorTask, make_task
from rtdetr.weights import remap, shapes
from rtdetr.weights.exchange import to_trees
from rtdetr.weights.foreign import Foreign, named_classes, read_foreign
from training.checkpoint.first import write_first_checkpoint
from training.config import MeshConfig
from training.errors import ConfigError
from training.mesh import Layout, make_mesh
from training.paths import named_leaves
from training.program import Program
from training.registry import load_config, make_config
from training.state import TrainState, new_state

if TYPE_CHECKING:
    from rtdetr.config import Config

# Without a recipe: an average, so that a run that keeps one can start from it.
PLAIN = {"system": "rtdetr", "name": "imported", "ema": {"kind": "warmup"}, "batch_size": 1}


@dataclasses.dataclass(frozen=True)
class ImportedTask(DetectorTask):
    """A detector whose checkpoint says that it has a backbone only."""

    def metadata(self) -> dict[str, Any]:
        return {remap.BACKBONE_ONLY: True}


def import_weights(args: argparse.Namespace) -> list[str]:
    """Writes the work folder; returns lines that say what was imported.

    Raises:
      InputError, CheckpointError, ConfigError: see `read_foreign` and `to_trees`; or no names of
        classes, or another number of them than the weights have.
    """
    found = read_foreign(args.source)
    config, where = config_of(args, found), str(args.source)
    if args.backbone_only:
        classes = ClassTable(("any",), (0,))  # nothing that is written depends on it
        task: DetectorTask = ImportedTask(config, saved_classes=classes)
    else:
        classes = _classes(found, args)
        task = replace(make_task(config), saved_classes=classes)
    trees = to_trees(found.tensors, config.model, len(classes), where, args.backbone_only)
    write(args, task, trees)
    return report(args, config, classes, trees)


def config_of(args: argparse.Namespace, found: Foreign) -> Config:
    """The recipe, if there is one, with the network of the weights."""
    if args.config is None:
        config: Any = make_config({**PLAIN, "total": {"updates": 1}}, args.overrides)
    else:
        config = load_config(args.config, args.overrides)
    if config.system != "rtdetr":
        raise ConfigError(f"{args.config} is a recipe of {config.system}; give one of rtdetr")
    model = replace(found.model, dtype=config.model.dtype, remat=config.model.remat)
    data = config.data
    if found.canvas is not None and args.config is None:
        data = replace(data, size=found.canvas)
    # As many as there can be queries for; the recipe of a run to come has its own.
    data = replace(data, max_objects=min(data.max_objects, model.decoder.queries))
    return replace(config, model=model, data=data)


def write(args: argparse.Namespace, task: DetectorTask, trees: dict[str, Any]) -> None:
    """The checkpoint of step 0."""
    config = task.config
    # One device will do: a checkpoint is restored on any mesh.
    layout = Layout(make_mesh(MeshConfig(), jax.devices()[:1]))
    alone = replace(config, mesh=MeshConfig(), accumulation=1)
    program = Program(replace(task, config=alone), layout)
    with jax.set_mesh(layout.mesh):
        state = _state(program, trees, args.backbone_only)
        with_data = bool(config.data.folder) and not args.backbone_only
        write_first_checkpoint(
            args.workdir, program, state, config, args.overrides, with_data=with_data
        )


def report(
    args: argparse.Namespace, config: Config, classes: ClassTable, trees: dict[str, Any]
) -> list[str]:
    """Lines for the user."""
    leaves = named_leaves(trees)
    numbers = sum(leaf.size for leaf in leaves.values())
    lines = [
        f"{len(leaves)} arrays, {numbers:,} numbers of {args.source} written to {args.workdir} as "
        "step 0"
    ]
    start = f"--config.checkpoint.init_from={args.workdir}"
    if args.backbone_only:
        start += f" --config.model.input_norm={config.model.input_norm}"
        return [*lines, f"a backbone only: start a run from it with {start}"]
    height, width = config.data.size
    names = ", ".join(classes.names[:8]) + (", ..." if len(classes) > 8 else "")
    return [
        *lines,
        f"{len(classes)} classes ({names}), canvas {height} x {width}",
        f"score it with podvision evaluate --workdir {args.workdir} --config.data.folder=DIR "
        f"--output DIR; train on other data with {start}",
    ]


def _state(program: Program, trees: dict[str, Any], backbone_only: bool) -> TrainState:
    """The state of step 0, without an initialization that would be thrown away."""
    params, statistics = (jax.tree.map(jnp.array, trees[n]) for n in ("params", "statistics"))
    average = None
    if program.abstract_state.ema is not None:
        # From the host again: arrays of its own, and nothing is compiled to copy them.
        average = jax.tree.map(jnp.array, {n: trees[n] for n in ("params", "statistics")})
    # One program instead of one for the zeros of each shape.
    moments = {} if backbone_only else jax.jit(program.optimizer.init)(params)
    key = jax.random.key(program.config.seed)
    state = new_state(params, statistics, moments, average, key)
    return state if backbone_only else jax.device_put(state, program.shardings)


def _classes(found: Foreign, args: argparse.Namespace) -> ClassTable:
    count = shapes.class_count(found.tensors, str(args.source))
    classes = found.classes
    if args.classes is not None:
        classes = named_classes(Path(args.classes))
    if classes is None:
        raise ConfigError(
            f"{args.source} does not name its {count} classes; give them with --classes, as "
            "prepared data or as a file with a name a line"
        )
    if len(classes) != count:
        raise ConfigError(
            f"{args.classes or args.source} names {len(classes)} classes and the weights have "
            f"{count}; give the names that they were trained with"
        )
    return classes
