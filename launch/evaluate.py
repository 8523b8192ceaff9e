"""Restore a checkpoint on the devices that are here, evaluate it, and write eval/<step>.json.

Other data than the run's: --config.KEY=VALUE changes its config (config.data.folder,
config.scene.path), and --output names a folder for the result, so that the run keeps its own.
"""

from __future__ import annotations

import argparse

from launch import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_workdir(parser)
    arguments.add_step(parser)
    parser.add_argument(
        "--output", metavar="DIR", help="folder for the result, instead of the work folder"
    )
    parser.set_defaults(takes_overrides=True)


def run(args: argparse.Namespace) -> int:
    from launch.platform import run_program

    return run_program(lambda: evaluate(args), args.debug)


def evaluate(args: argparse.Namespace) -> int:
    """Evaluates one checkpoint and prints its metrics."""
    import jax

    from training import distributed
    from training.checkpoint.restore import restored
    from training.errors import ConfigError
    from training.evaluation import evaluate_state, write_evaluation
    from training.record.metrics import save_images

    if args.overrides and args.output is None:
        raise ConfigError(
            "--config.KEY=VALUE evaluates something else than the run; give --output DIR for the "
            f"result, so that {args.workdir} keeps its own"
        )
    folder = args.workdir if args.output is None else args.output
    program, state, step = restored(args.workdir, args.step, overrides=args.overrides)
    with jax.set_mesh(program.layout.mesh):
        result = evaluate_state(program, state)
    save_images(folder, step, result.images)  # every host has pictures of its own
    if distributed.is_main():
        path = write_evaluation(folder, step, result)
        for name, value in result.metrics.items():
            print(f"{name:<32} {value:.6g}")
        print(f"step {step}: written to {path}")
    return 0
