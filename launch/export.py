"""Write a trained model in a format that other programs read.

splats: ply, compressed.ply, splat, spz, glb (the Gaussians, in the data set's own world);
jepa3d: safetensors (target encoder and predictor, tensors named as transformers' VJEPA2Model).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from launch import arguments

# System -> module with `check_arguments(args)` and `export(program, state, step, args) -> lines`.
MODULES = {"jepa3d": "jepa3d.export", "splats": "splats.export"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_workdir(parser)
    arguments.add_step(parser)
    parser.add_argument("--format", metavar="NAME", help="file format (what --output ends in)")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="file to write")
    parser.add_argument(
        "--normalised", action="store_true", help="splats: keep the normalised world of training"
    )


def run(args: argparse.Namespace) -> int:
    from launch.platform import run_program

    return run_program(lambda: export(args), args.debug)


def export(args: argparse.Namespace) -> int:
    """Restores a checkpoint and hands it to its system."""
    import jax

    from training.restore import restored
    from training.run_folder import read_config

    module = arguments.system_module(read_config(args.workdir).system, MODULES, "export")
    module.check_arguments(args)
    program, state, step = restored(args.workdir, args.step)
    with jax.set_mesh(program.layout.mesh):
        lines = module.export(program, state, step, args)
    print("\n".join(lines))
    return 0
