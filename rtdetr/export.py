"""`podvision export` of a detector, in the format that another program reads.

`safetensors` is the weights, in a folder that transformers opens; `stablehlo` and `onnx` are the
whole way from pixels to boxes, verified as soon as they are written. Weights are the average where
the run keeps one.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from training.errors import ConfigError, InputError

if TYPE_CHECKING:
    from training.program import Program
    from training.state import TrainState

# Of each format, the module whose `write` makes it; imported when it is asked for.
FORMATS = {
    "safetensors": "rtdetr.weights.export_folder",
    "stablehlo": "rtdetr.graphs.stablehlo",
    "onnx": "rtdetr.graphs.onnx_graph",
}
DEFAULT = "safetensors"
# Which formats know an argument.
DIALS = {
    "batch": ("onnx",),
    "top": ("stablehlo", "onnx"),
    "layers": ("stablehlo", "onnx"),
    "queries": ("stablehlo", "onnx"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "--format", choices=tuple(FORMATS), default=DEFAULT, help=f"what is written ({DEFAULT})"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument("--batch", type=int, metavar="N", help="images at a time; onnx (1)")
    parser.add_argument("--top", type=int, metavar="N", help="detections of an image")
    parser.add_argument("--layers", type=int, metavar="N", help="decoder layers to use; 1 to all")
    parser.add_argument("--queries", type=int, metavar="N", help="queries; any number")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="score the file on the evaluation split, too; stablehlo and onnx",
    )


def check_arguments(args: argparse.Namespace) -> None:
    """Raises ConfigError for an output that is a file, and for arguments of other formats."""
    if args.output.is_file():
        raise ConfigError(f"--output {args.output} is a file; give a folder")
    for name, formats in DIALS.items():
        value = getattr(args, name)
        if value is None:
            continue
        if args.format not in formats:
            raise ConfigError(
                f"--{name} does not go with --format {args.format}; leave it out, or choose "
                f"{' or '.join(formats)}"
            )
        if value < 1:
            raise ConfigError(f"--{name} {value}: give 1 or more")
    if args.verify and args.format == "safetensors":
        raise ConfigError(
            "--verify does not go with --format safetensors, which is no program; leave it out, or "
            "choose stablehlo or onnx"
        )


def export(program: Program, state: TrainState, step: int, args: argparse.Namespace) -> list[str]:
    """Writes `args.output`; returns lines that say what is in it.

    Raises:
      ConfigError: the network has a setting that the format lacks.
      InputError: the folder cannot be written, or what was written answers otherwise.
    """
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        return importlib.import_module(FORMATS[args.format]).write(program, state, step, args)
    except OSError as error:
        raise InputError(f"{args.output} cannot be written ({error.strerror or error})") from error
