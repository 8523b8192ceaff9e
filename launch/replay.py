"""Re-run a recorded bad step exactly, on one device, with NaN checking.

Prints the first offending tensor and the gradient norms per loss term and parameter group.
"""

from __future__ import annotations

import argparse

from launch import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_workdir(parser)
    parser.add_argument("--step", required=True, type=int, help="a step under recorder/")


def run(args: argparse.Namespace) -> int:
    from launch.platform import run_program

    return run_program(lambda: replay(args), args.debug)


def replay(args: argparse.Namespace) -> int:
    from training.replay import replay as rerun

    rerun(args.workdir, args.step, print)
    return 0
