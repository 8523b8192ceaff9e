"""Prepare data for a system: `podvision prepare jepa3d|splats --input DIR --output DIR`."""

from __future__ import annotations

import argparse
import importlib
import importlib.util

# System -> module with `add_arguments(parser)` and `run(args) -> exit code`.
MODULES = {"jepa3d": "jepa3d.prepare", "splats": "splats.prepare"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    systems = parser.add_subparsers(dest="system", required=True, metavar="SYSTEM")
    for system, module_name in MODULES.items():
        if importlib.util.find_spec(system) is None:
            continue
        module = importlib.import_module(module_name)
        summary = module.__doc__ or system
        child = systems.add_parser(
            system,
            description=summary,
            help=summary.splitlines()[0],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        # SUPPRESS: without it the default of this parser would overwrite an earlier --debug.
        child.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks"
        )
        module.add_arguments(child)
        child.set_defaults(prepare=module.run)


def run(args: argparse.Namespace) -> int:
    return args.prepare(args)
