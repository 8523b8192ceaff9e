"""A prior of a training run as one file: `podvision export --format prior`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.errors import ConfigError

if TYPE_CHECKING:
    from training.program import Program
    from training.state import TrainState

FORMAT = "prior"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("--format", default=FORMAT, help="only `prior`: a safetensors file")
    parser.add_argument("--output", required=True, type=Path, metavar="PATH", help="file to write")


def check_arguments(args: argparse.Namespace) -> None:
    """Before anything is restored."""
    if args.format != FORMAT:
        raise ConfigError(f"--format {args.format} is unknown for a prior; it is {FORMAT}")


def export(program: Program, state: TrainState, step: int, args: argparse.Namespace) -> list[str]:
    """Writes the file in float16; returns a line for the user."""
    # Not above: the command line is parsed without jax.
    from hand_object.prior.conditions import category_vector
    from hand_object.prior.prior_file import save_prior
    from hand_object.prior.source import training_grasps
    from hand_object.prior.trained_prior import PriorForm

    config = program.task.config
    source = training_grasps(config)
    size = config.unet.condition
    conditions = {name: category_vector(name, size) for name in source.categories}
    conditions[""] = np.zeros(size, np.float32)
    form = PriorForm(config.grid, config.unet, None, source.hand.model.name)
    note = f"{config.name}, {step} updates"
    save_prior(
        args.output,
        {"unet": state.params, "statistics": state.model_state},
        conditions,
        form,
        note,
        "float16",
    )
    return [f"a prior of {len(conditions) - 1} categories written to {args.output}"]
