"""Prove that a config can learn: train on a few fixed examples until they are known by heart.

Exit code 0 if the system's own success metric was reached and every parameter group had a
gradient, 3 if not. Writes nothing but, with --workdir, the verdict.
"""

from __future__ import annotations

import argparse

from launch import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_config(parser)
    parser.add_argument("--examples", type=int, default=4, help="how many fixed examples (4)")
    parser.add_argument("--updates", type=int, default=300, help="how many updates (300)")
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        help="leave the verdict in the work folder of the run to come, for its report",
    )


def run(args: argparse.Namespace) -> int:
    from launch.platform import run_program

    return run_program(lambda: overfit(args), args.debug)


def overfit(args: argparse.Namespace) -> int:
    from training.errors import EXIT_DONE, EXIT_GUARD, ConfigError
    from training.overfit import overfit as train_on_fixed
    from training.overfit import write_verdict
    from training.record.left_as_found import left_as_found
    from training.record.run_folder import open_run_folder
    from training.registry import load_config, make_task

    if args.examples < 1 or args.updates < 1:
        raise ConfigError("--examples and --updates must be at least 1")
    config = load_config(args.config, args.overrides)
    if args.workdir is not None:
        with left_as_found(args.workdir):
            open_run_folder(args.workdir)  # a folder that cannot be written is told at once
    verdicts = train_on_fixed(make_task(config), args.examples, args.updates, print)
    if args.workdir is not None:
        write_verdict(args.workdir, verdicts)
    for verdict in verdicts:
        print(f"{'pass' if verdict.passed else 'FAIL'}  {verdict.name:<14} {verdict.sentence}")
    return EXIT_DONE if all(verdict.passed for verdict in verdicts) else EXIT_GUARD
