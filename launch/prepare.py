"""Prepare data for a system; `podvision prepare SYSTEM --help` shows its arguments."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from launch import system_commands
from training.registry import system_module


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # all of them are the system's


def add_arguments_of_system(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    system_commands.add_named_systems(parser, "prepare", argv)


def run(args: argparse.Namespace) -> int:
    return system_module(args.system, "prepare").run(args)
