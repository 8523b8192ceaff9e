"""Use a trained model on an input.

splats: renders --input orbit[:FRAMES], a camera path in JSON, or the views of a scene folder, to a
folder of PNG files or an .mp4 file. jepa3d: turns --input, a volume (DICOM, .vol, .npy, .npz, a
folder of B-scans) or a folder of them, into .npz files of token and pooled embeddings of the target
encoder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from launch import arguments, trained_model

# System -> module with `check_arguments(args)` and `predict(program, state, step, args) -> lines`.
MODULES = {"jepa3d": "jepa3d.predict", "splats": "splats.predict"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_workdir(parser)
    arguments.add_step(parser)
    parser.add_argument("--input", required=True, metavar="PATH", help="what to use the model on")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="PATH", help="folder or file to write"
    )


def run(args: argparse.Namespace) -> int:
    return trained_model.use(args, "predict", MODULES)
