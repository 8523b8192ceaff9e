"""Use a trained model on an input: the checkpoint of a run, or a model that was exported."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from launch import arguments, system_commands, trained_model
from training.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_workdir(parser, required=False)
    arguments.add_step(parser)
    parser.add_argument(
        "--model", type=Path, metavar="DIR", help="folder of podvision export, instead of --workdir"
    )


def add_arguments_of_system(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    folder = system_commands.named_value(argv, "--model")
    if folder is None:
        system_commands.add_arguments_of_run(parser, "predict", argv)
    else:
        system = trained_model.system_of_folder(Path(folder))
        system_commands.add_arguments_of_system(parser, "predict", system)


def run(args: argparse.Namespace) -> int:
    if (args.model is None) == (args.workdir is None):
        raise ConfigError(
            "say which model is to be used: --workdir of a run, or --model with an exported folder"
        )
    if args.model is not None:
        return trained_model.use_folder(args, "predict")
    return trained_model.use(args, "predict")
