"""Restore a checkpoint on the devices that are here, evaluate it, and write eval/<step>.json."""

from __future__ import annotations

import argparse

from launch import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_workdir(parser)
    arguments.add_step(parser)


def run(args: argparse.Namespace) -> int:
    from launch.platform import run_program

    return run_program(lambda: evaluate(args), args.debug)


def evaluate(args: argparse.Namespace) -> int:
    """Evaluates one checkpoint and prints its metrics."""
    import jax

    from training import distributed
    from training.checkpoint.restore import restored
    from training.evaluation import evaluate_state, write_evaluation
    from training.record.metrics import save_images

    program, state, step = restored(args.workdir, args.step)
    with jax.set_mesh(program.layout.mesh):
        result = evaluate_state(program, state)
    save_images(args.workdir, step, result.images)  # every host has pictures of its own
    if distributed.is_main():
        path = write_evaluation(args.workdir, step, result)
        for name, value in result.metrics.items():
            print(f"{name:<32} {value:.6g}")
        print(f"step {step}: written to {path}")
    return 0
