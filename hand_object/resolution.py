"""The `--resolution` of commands that mesh fields."""

from __future__ import annotations

import argparse

from training.errors import ConfigError

LEAST, MOST = 16, 512


def add_resolution(parser: argparse.ArgumentParser, default: int) -> None:
    """Adds the argument."""
    parser.add_argument(
        "--resolution",
        type=int,
        default=default,
        metavar="N",
        help=f"cells along a side that fields are meshed with ({default})",
    )


def check_resolution(args: argparse.Namespace) -> None:
    """Raises ConfigError for a number out of range."""
    if not LEAST <= args.resolution <= MOST:
        raise ConfigError(f"--resolution {args.resolution}: give {LEAST} to {MOST} cells")
