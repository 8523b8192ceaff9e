"""`podvision view` of a trained scene: its Gaussians in the browser, with the photographs' cameras.

Renderings of the training program are made on request; with --follow each new checkpoint is shown.
"""

from __future__ import annotations

import argparse

from training.errors import ConfigError

LARGEST_PORT = 65535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("--port", type=int, default=8080, metavar="N", help="(8080)")
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="0.0.0.0: other machines, too"
    )
    parser.add_argument("--follow", action="store_true", help="show new checkpoints as they appear")


def check_arguments(args: argparse.Namespace) -> None:
    """Raises ConfigError for arguments that cannot work, or without viser."""
    if not 0 < args.port <= LARGEST_PORT:
        raise ConfigError(f"--port {args.port} is no port; give one from 1 to {LARGEST_PORT}")
    if args.follow and args.step != "latest":
        raise ConfigError(f"--follow shows the newest checkpoint; leave --step {args.step} out")
    from splats.viewer.page import require_viser

    require_viser()


def view(args: argparse.Namespace) -> None:
    """Serves the page until it is stopped."""
    from splats.viewer.serving import serve_run

    serve_run(args.workdir, args.step, args.follow, args.host, args.port)
