"""`podvision import rtdetr --from PATH`: RT-DETR of transformers or of its authors as our step 0.

PATH is a folder of transformers (`config.json`, `model.safetensors`), of RT-DETR or RT-DETRv2, or
a `.pth` file of the authors, which is read without PyTorch; for a backbone alone also a file of
timm's resnet50d or resnet101d. Every array must fit.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "--classes",
        type=Path,
        metavar="PATH",
        help="names of the classes, which a .pth lacks: prepared data, or a file of a name a line",
    )
    parser.add_argument(
        "--backbone-only",
        action="store_true",
        help="take the backbone alone, for a run that starts from it",
    )


def import_weights(args: argparse.Namespace) -> list[str]:
    """Writes the work folder; returns lines that say what was imported."""
    from rtdetr.weights import imported  # not above: the command line is parsed without jax

    return imported.import_weights(args)
