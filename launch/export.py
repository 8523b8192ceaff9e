"""Write a trained model in a format that other programs read.

splats: ply, compressed.ply, splat, spz, glb (the Gaussians, in the data set's own world);
jepa3d: safetensors (target encoder and predictor, tensors named as transformers' VJEPA2Model).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from launch import arguments, trained_model

# System -> module with `check_arguments(args)` and `export(program, state, step, args) -> lines`.
MODULES = {"jepa3d": "jepa3d.export", "splats": "splats.export"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_workdir(parser)
    arguments.add_step(parser)
    parser.add_argument("--format", metavar="NAME", help="file format (what --output ends in)")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="file to write")
    parser.add_argument(
        "--normalized", action="store_true", help="splats: keep the normalized world of training"
    )
    parser.add_argument(
        "--spz-version", type=int, default=3, metavar="3|4", help="splats: of an .spz file (3)"
    )


def run(args: argparse.Namespace) -> int:
    return trained_model.use(args, "export", MODULES)
