"""Start a work folder from a model of another program: its weights become the checkpoint of step 0.

`train` goes on from there, `evaluate` scores it. `podvision import SYSTEM --help`
shows what is read.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from launch import arguments, system_commands
from training.registry import system_module

ROLE = "import_weights"  # `import` cannot be the name of a module


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # all of them are the system's


def add_arguments_of_system(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    system_commands.add_named_systems(parser, ROLE, argv, add_shared)


def add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from", dest="source", required=True, type=Path, metavar="PATH", help="weights to read"
    )
    arguments.add_workdir(parser)
    # Weights that bring their own settings need no recipe; a system that does says so.
    arguments.add_config(parser, required=False)


def run(args: argparse.Namespace) -> int:
    from launch.platform import run_program

    return run_program(lambda: import_weights(args), args.debug)


def import_weights(args: argparse.Namespace) -> int:
    """Hands the file to its system."""
    print("\n".join(system_module(args.system, ROLE).import_weights(args)))
    return 0
