"""Before a pod is paid for: does the run compile for it, fit, find its data, and resume?

Nothing is trained and no accelerator is needed. The checks go from cheap to dear: config and
arithmetic, data, checkpoint, work folder, then the real compiler of the TPU (extra [tpu]) for the
slice. Verdicts are kept, so that asking again takes seconds. docs/preflight.md explains each row.

Exit codes: 0 nothing speaks against the run, 2 something does.
"""

from __future__ import annotations

import argparse
from typing import Any

from launch import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_config(parser)
    parser.add_argument(
        "--topology", default="v4-32", metavar="NAME", help="slice that it shall run on (v4-32)"
    )
    arguments.add_workdir(parser, required=False)
    parser.add_argument("--init-from", metavar="DIR", help="work folder that the run starts from")
    parser.add_argument("--zone", metavar="ZONE", help="of the slice, such as us-central2-b")
    parser.add_argument(
        "--price", type=float, metavar="DOLLARS", help="of a chip-hour, instead of the list price"
    )
    parser.add_argument("--no-data", action="store_true", help="do not open the data")
    parser.add_argument(
        "--search",
        action="store_true",
        help="try other batches, accumulation and recomputation: minutes for each",
    )
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")


def run(args: argparse.Namespace) -> int:
    from launch.platform import run_program

    return run_program(lambda: preflight(args), args.debug)


def preflight(args: argparse.Namespace) -> int:
    """Runs the checks of each stage, printing every row as it comes."""
    import json

    from launch.preflight.checks import Options
    from launch.preflight.report import printed, summary
    from launch.preflight.rows import failed
    from launch.preflight.stages import checked
    from launch.preflight.topology import topology
    from training.errors import EXIT_DONE, EXIT_USAGE, ConfigError

    if args.price is not None and not 0 < args.price < 1e6:
        raise ConfigError(f"--price {args.price} must be above 0: dollars for an hour of one chip")
    overrides = list(args.overrides)
    if args.init_from:
        overrides.append(f"checkpoint.init_from={args.init_from}")
    options = Options(
        config=args.config,
        overrides=tuple(overrides),
        topology=topology(args.topology),
        zone=args.zone,
        dollars=args.price,
        read_data=not args.no_data,
        search=args.search,
    )
    found: list[dict[str, Any]] = []
    rows = []
    for name, row in checked(options, args.workdir):
        rows.append(row)
        found.append({"stage": name} | row.as_json())
        if not args.json:
            print(printed(name, row), flush=True)
    ok = not failed(rows)
    if args.json:
        facts = {"ok": ok, "topology": options.topology.name, "config": args.config}
        print(json.dumps(facts | {"rows": found}, indent=1))
    else:
        print(summary(rows))
    return EXIT_DONE if ok else EXIT_USAGE
