"""Arguments that several commands share."""

from __future__ import annotations

import argparse


def add_config(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument(
        "--config",
        required=required,
        metavar="FILE.py[:ARGS]",
        help="recipe, see configs/; keys are changed by --config.KEY=VALUE",
    )


def add_workdir(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument(
        "--workdir",
        required=required,
        metavar="DIR",
        help="work folder of the run, or gs://BUCKET/DIR",
    )


def add_step(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--step", default="latest", metavar="N|latest|best", help="which checkpoint (latest)"
    )
