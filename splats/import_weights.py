"""`podvision import splats --from FILE.ply`: Gaussians of another trainer become our step 0.

The file is the PLY layout of INRIA's program, in the data set's own world.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "--normalized",
        action="store_true",
        help="the file is in the normalized world of training (export --normalized)",
    )


def import_weights(args: argparse.Namespace) -> list[str]:
    """Writes the work folder; returns lines that say what was imported."""
    from splats.gaussians import imported  # not above: the command line is parsed without jax

    return imported.import_weights(args)
