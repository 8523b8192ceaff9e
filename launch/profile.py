"""`podvision profile`: a running training traces its next updates, without being stopped.

The trace lies in `profile/<step>/` of the work folder, where `xprof --logdir` and Perfetto open it.
On a pod it is that of the first host.
"""

from __future__ import annotations

import argparse

from launch import arguments
from training.errors import EXIT_DONE

UPDATES = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    arguments.add_workdir(parser)
    parser.add_argument(
        "--updates", type=int, default=UPDATES, metavar="N", help=f"how many to trace ({UPDATES})"
    )


def run(args: argparse.Namespace) -> int:
    """Leaves the request and says where the answer will be."""
    from training.record.profile import FOLDER, LOOK_SECONDS, ask

    request = ask(args.workdir, args.updates)
    print(
        f"asked for {args.updates} updates: the run looks at {request} every {LOOK_SECONDS:.0f} "
        f"seconds or after a call that takes longer, then writes {request.parent / FOLDER}/<step>"
    )
    return EXIT_DONE
