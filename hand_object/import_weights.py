"""`podvision import hand_object --from last.ckpt`: G-HOP's diffusion prior as one of ours.

PATH is the Lightning checkpoint of G-HOP, which is read without PyTorch. Every array must fit, and
the network must work on a ball. The license of the weights (CC-BY-NC) goes with them. The folder
of --workdir then names the prior of a run.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "--conditions",
        type=Path,
        metavar="NPZ",
        help="CLIP's vectors of the categories, by name, and `empty` for the empty sentence",
    )


def import_weights(args: argparse.Namespace) -> list[str]:
    """Writes the prior to the work folder; returns lines that say what was imported."""
    from hand_object.prior.import_ghop import import_checkpoint  # the command line needs no jax

    return import_checkpoint(args)
