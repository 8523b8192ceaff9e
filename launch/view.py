"""Look at a model in the browser, also while it is being trained (needs podvision[viewer])."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from launch import arguments, system_commands
from training import stop
from training.registry import system_module

ON_SIGNAL = stop.ASK  # it serves until it is asked to stop


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_workdir(parser)
    arguments.add_step(parser)


def add_arguments_of_system(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    system_commands.add_arguments_of_run(parser, "view", argv)


def run(args: argparse.Namespace) -> int:
    from launch.platform import run_program

    return run_program(lambda: view(args), args.debug)


def view(args: argparse.Namespace) -> int:
    """Serves until it is stopped."""
    module = system_module(args.system, "view")
    module.check_arguments(args)
    module.view(args)
    return 0
