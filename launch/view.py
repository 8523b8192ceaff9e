"""Look at a model in the browser, also while it is being trained (needs podvision[viewer]).

splats: serves the Gaussians of a work folder, with the cameras and photographs of the scene, and
exact renderings on request. With --follow each new checkpoint is shown as it appears.
"""

from __future__ import annotations

import argparse

from launch import arguments

# System -> module with `check_arguments(args)` and `view(args)`.
MODULES = {"splats": "splats.view"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_workdir(parser)
    arguments.add_step(parser)
    parser.add_argument("--port", type=int, default=8080, metavar="N", help="(8080)")
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="0.0.0.0: other machines, too"
    )
    parser.add_argument("--follow", action="store_true", help="show new checkpoints as they appear")


def run(args: argparse.Namespace) -> int:
    from launch.platform import run_program

    return run_program(lambda: view(args), args.debug)


def view(args: argparse.Namespace) -> int:
    """Serves until it is stopped."""
    from training.record.run_folder import read_config

    module = arguments.system_module(read_config(args.workdir).system, MODULES, "view")
    module.check_arguments(args)
    module.view(args)
    return 0
