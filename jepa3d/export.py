"""`podvision export` of a V-JEPA3D run: the target encoder and the predictor as safetensors."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jepa3d.config import ModelConfig
from jepa3d.vjepa2_weights import export_weights
from training.errors import ConfigError, InputError
from training.weight_files import write_safetensors

if TYPE_CHECKING:
    from training.program import Program
    from training.state import TrainState

FORMAT = "safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("--format", choices=(FORMAT,), default=FORMAT, help=f"({FORMAT})")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="file to write")


def check_arguments(args: argparse.Namespace) -> None:
    """Raises ConfigError for an ending other than safetensors."""
    if args.output.suffix != f".{FORMAT}":
        raise ConfigError(f"--output {args.output.name} must end in .{FORMAT}")


def export(program: Program, state: TrainState, step: int, args: argparse.Namespace) -> list[str]:
    """Writes `args.output`; returns a line that says what is in it."""
    model: ModelConfig = program.config.model  # type: ignore[attr-defined]
    import jax  # not above: the command line is parsed without it

    trees = jax.device_get({"encoder": state.ema, "predictor": state.params["predictor"]})
    tensors = export_weights(trees, model)
    try:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_safetensors(Path(args.output), tensors, metadata(model, step))
    except OSError as error:
        raise InputError(f"{args.output} cannot be written ({error.strerror or error})") from error
    count = sum(tensor.size for tensor in tensors.values())
    return [
        f"step {step}: {len(tensors)} tensors, {count:,} numbers written to {args.output}; "
        "encoder.* is the target encoder (the moving average)"
    ]


def metadata(model: ModelConfig, step: int) -> dict[str, str]:
    """What the file says about itself: which tree is which, and the model as JSON."""
    settings: dict[str, Any] = dataclasses.asdict(model)
    return {
        "format": "pt",  # readers of transformers ask for it; it states the axis order only
        "encoder": "target encoder: exponential moving average of the trained encoder",
        "predictor": "trained predictor",
        "naming": "transformers VJEPA2Model",
        "step": str(step),
        "model": json.dumps(settings),
    }
