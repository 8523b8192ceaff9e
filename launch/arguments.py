"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from types import ModuleType

from training.errors import ConfigError


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE.py[:ARGS]",
        help="recipe, see configs/; keys are changed by --config.KEY=VALUE",
    )


def add_workdir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="work folder of the run, or gs://BUCKET/DIR"
    )


def add_step(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--step", default="latest", metavar="N|latest|best", help="which checkpoint (latest)"
    )


def system_module(system: str, modules: Mapping[str, str], command: str) -> ModuleType:
    """The module that does a command for a system.

    Args:
      modules: system -> name of its module.

    Raises:
      ConfigError: the command has nothing for this system.
    """
    if system not in modules:
        raise ConfigError(
            f"podvision {command} has nothing for runs of {system}; it serves "
            f"{', '.join(sorted(modules))}"
        )
    return importlib.import_module(modules[system])
