"""Prepare data for a system: `podvision prepare jepa3d|splats --input DIR --output DIR`."""

from __future__ import annotations

import argparse

# System -> module with `add_arguments(parser)` and `run(args) -> exit code`.
MODULES = {"jepa3d": "jepa3d.data.command", "splats": "splats.data.command"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    import importlib

    systems = parser.add_subparsers(dest="system", required=True, metavar="SYSTEM")
    for system, module_name in MODULES.items():
        module = importlib.import_module(module_name)
        child = systems.add_parser(
            system,
            description=module.__doc__,
            help=(module.__doc__ or "").splitlines()[0],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        child.add_argument("--debug", action="store_true", help="show the traceback of an error")
        module.add_arguments(child)
        child.set_defaults(prepare=module.run)


def run(args: argparse.Namespace) -> int:
    return args.prepare(args)
