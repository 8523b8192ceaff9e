"""Write a trained model in a format that other programs read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from launch import arguments, system_commands, trained_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_workdir(parser)
    arguments.add_step(parser)


def add_arguments_of_system(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    system_commands.add_arguments_of_run(parser, "export", argv)


def run(args: argparse.Namespace) -> int:
    return trained_model.use(args, "export")
