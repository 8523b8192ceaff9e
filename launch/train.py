"""Train a system, or resume: the same command goes on from the newest checkpoint.

Exit codes: 0 done, or cleanly stopped on request (DONE or PREEMPTED in the work folder),
2 refused (config, data or checkpoint), 3 stopped by a guard, 4 too much unreadable data.
"""

from __future__ import annotations

import argparse

from launch import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_config(parser)
    arguments.add_workdir(parser)
    parser.add_argument(
        "--allow-config-change",
        default="",
        metavar="KEY,...",
        help="keys that may differ from those of the checkpoint (data allows other data)",
    )


def run(args: argparse.Namespace) -> int:
    from launch.platform import run_program

    return run_program(lambda: train(args), args.debug)


def train(args: argparse.Namespace) -> int:
    """Loads the config, makes the task and trains."""
    from training.loop import fit
    from training.registry import load_config, make_task

    config = load_config(args.config, args.overrides)
    allowed = tuple(key for key in args.allow_config_change.split(",") if key)
    fit(make_task(config), args.workdir, args.overrides, allowed)
    return 0
