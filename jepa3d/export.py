"""`podvision export` of a V-JEPA3D run: the model as a folder that needs nothing else."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from training.errors import ConfigError, InputError

if TYPE_CHECKING:
    from jepa3d.model_folder import TrainedModel
    from jepa3d.task import JepaTask
    from training.program import Program
    from training.state import TrainState

FORMAT = "safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("--format", choices=(FORMAT,), default=FORMAT, help=f"({FORMAT})")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write")


def check_arguments(args: argparse.Namespace) -> None:
    """Raises ConfigError for an output that is, or looks like, a file."""
    if args.output.suffix == f".{FORMAT}" or args.output.is_file():
        raise ConfigError(
            f"--output {args.output} is a file; give a folder, which gets weights, config.json, "
            "preprocessing and a model card"
        )


def export(program: Program, state: TrainState, step: int, args: argparse.Namespace) -> list[str]:
    """Writes `args.output`; returns a line that says what is in it."""
    import jax  # not above: the command line is parsed without it

    from jepa3d import model_folder
    from jepa3d.model_card import model_card
    from training.checkpoint.store import CheckpointReader

    task: JepaTask = program.task  # type: ignore[assignment]
    trained = trained_model(task, state, step)
    metrics = CheckpointReader(args.workdir).describe(step).metrics
    card = model_card(task.config.name or "V-JEPA3D", trained, metrics, _scanners(task))
    predictor = jax.device_get(state.params["predictor"])
    count = model_folder.write(args.output, trained, predictor, card)
    return [
        f"step {step}: {count:,} numbers (target encoder and predictor) written to {args.output}; "
        f"use it with podvision predict --model {args.output}, or VJEPA2Model.from_pretrained"
    ]


def trained_model(task: JepaTask, state: TrainState, step: int) -> TrainedModel:
    """The model of a restored run, on the host."""
    import jax

    from jepa3d.model_folder import TrainedModel, preparation_of

    config = task.config
    preparation = preparation_of(task.preparation)
    return TrainedModel(config.model, config.data, preparation, jax.device_get(state.ema), step)


def _scanners(task: JepaTask) -> Counter[str]:
    """Training volumes by scanner, none where the records are no longer there."""
    from jepa3d.data import VolumeSource

    data = task.config.data
    try:
        source = VolumeSource(data.folder, data.train_split, only=data.scanners)
    except InputError:
        return Counter()
    return Counter(row["scanner"] for row in source.rows)
