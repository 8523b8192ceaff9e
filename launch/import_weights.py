"""Start a work folder from a model of another program: its weights become the checkpoint of step 0.

splats: a Gaussian splat .ply (INRIA's layout, as most trainers write it), in the world of the
data set. `train` goes on from there, `evaluate` scores it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from launch import arguments

# System -> module with `import_weights(args) -> lines to print`.
MODULES = {"splats": "splats.import_weights"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("system", choices=sorted(MODULES), help="whose model it becomes")
    parser.add_argument(
        "--from", dest="source", required=True, type=Path, metavar="PATH", help="weights to read"
    )
    arguments.add_workdir(parser)
    arguments.add_config(parser)
    parser.add_argument(
        "--normalized",
        action="store_true",
        help="splats: the file is in the normalized world of training (export --normalized)",
    )


def run(args: argparse.Namespace) -> int:
    from launch.platform import run_program

    return run_program(lambda: import_weights(args), args.debug)


def import_weights(args: argparse.Namespace) -> int:
    """Hands the file to its system."""
    module = arguments.system_module(args.system, MODULES, "import")
    print("\n".join(module.import_weights(args)))
    return 0
