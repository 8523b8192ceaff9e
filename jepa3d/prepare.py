"""`podvision prepare jepa3d`: arguments, progress and exit code."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from training.errors import EXIT_DONE, ConfigError, DataFault

if TYPE_CHECKING:
    from jepa3d.config import PrepareSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments; imports nothing heavy."""
    parser.add_argument("--input", required=True, help="AI-READI tree, or a folder of OCT files")
    parser.add_argument("--output", required=True, help="folder of the records, new or prepared")
    parser.add_argument("--mode", choices=("window", "resize"), default="window")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 32))
    parser.add_argument("--shape", default="64,384,384", help="voxels D,H,W of a record")
    parser.add_argument("--patch", default="4,16,16", help="voxels D,H,W of a token")
    parser.add_argument("--window-mm", default="6.0,1.92,6.0", help="slow scan, depth, fast scan")
    parser.add_argument("--minimum-frames", type=int, default=5)
    parser.add_argument("--minimum-valid-fraction", type=float, default=0.0)
    parser.add_argument("--minimum-ok-fraction", type=float, default=0.5)
    parser.add_argument("--eval-fraction", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0, help="of the split by participant")
    parser.add_argument("--image-spacing-mm", default="", help="pitch,axial,lateral of images")
    parser.add_argument("--participant-pattern", default="", help="regular expression, group 1")
    parser.add_argument("--flip-left-eyes", action="store_true")
    parser.add_argument(
        "--share",
        default="",
        metavar="K/N",
        help="convert share K of N on this host; then run once without it to put all together",
    )


def settings_from(arguments: argparse.Namespace) -> PrepareSettings:
    """The settings that the arguments ask for.

    Raises:
      ConfigError: a triple of numbers that is none.
    """
    from jepa3d.config import PrepareSettings

    spacing = arguments.image_spacing_mm
    return PrepareSettings(
        mode=arguments.mode,
        shape=_triple(arguments.shape, int, "--shape"),
        patch=_triple(arguments.patch, int, "--patch"),
        window_mm=_triple(arguments.window_mm, float, "--window-mm"),
        minimum_frames=arguments.minimum_frames,
        minimum_valid_fraction=arguments.minimum_valid_fraction,
        minimum_ok_fraction=arguments.minimum_ok_fraction,
        eval_fraction=arguments.eval_fraction,
        split_seed=arguments.seed,
        image_spacing_mm=_triple(spacing, float, "--image-spacing-mm") if spacing else None,
        participant_pattern=arguments.participant_pattern,
        flip_left_eyes=arguments.flip_left_eyes,
        workers=arguments.workers,
    )


def _triple(text: str, kind: type, name: str) -> tuple:
    try:
        values = tuple(kind(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3:
        raise ConfigError(f"{name} is {text!r}; it must be three numbers such as 64,384,384")
    return values


def run(arguments: argparse.Namespace) -> int:
    """Prepares the folder and prints the account.

    Returns:
      0 when every named scanner is above the floor.

    Raises:
      PodvisionError: `DataFault` below the floor (everything is written by then), `InputError` or
        `ConfigError` for what the user can mend.
    """
    from jepa3d.data.prepare import prepare
    from jepa3d.data.shares import Share

    settings = settings_from(arguments)
    share = Share.parse(arguments.share) if arguments.share else None
    with _Reporter() as report:
        account = prepare(arguments.input, arguments.output, settings, report, share)
    print(account.table())
    if share is not None:
        print(f"share {arguments.share} is done; when all are, give the command without --share")
        return EXIT_DONE
    fault = account.fault()
    if fault:
        raise DataFault(fault)
    return EXIT_DONE


class _Reporter:
    """Progress: a bar on a terminal, otherwise a plain line for each skip and every 50 inputs."""

    def __init__(self):
        self._bar = None
        self._task = None

    def __enter__(self):
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._bar.start()
        return self

    def __exit__(self, *unused):
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int, row: dict) -> None:
        if self._bar is None:
            if row["status"] != "ok" or done % 50 == 0 or done == total:
                outcome = "ok" if row["status"] == "ok" else f"{row['reason']}: {row['detail']}"
                print(f"[{done}/{total}] {row['path']} {outcome}", file=sys.stderr)
            return
        if self._task is None:
            self._task = self._bar.add_task("preparing", total=total)
        # The end of a path tells files apart.
        self._bar.update(self._task, completed=done, description=row["path"][-40:])
