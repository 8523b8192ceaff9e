"""See podvision work on synthetic data: data, training, evaluation from a checkpoint, report.

Runs on a CPU in minutes and needs no data, account or network.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training import stop
from training.errors import EXIT_DONE
from training.registry import system_module, systems_with


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("system", nargs="?", choices=systems_with("demo"), help="one system (all)")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/demo"), metavar="DIR", help="(runs/demo)"
    )


def run(args: argparse.Namespace) -> int:
    for system in [args.system] if args.system else systems_with("demo"):
        code = run_demo(system, args.output / system)
        if code != EXIT_DONE:
            return code
    return EXIT_DONE


def run_demo(system: str, folder: Path) -> int:
    """Runs a system's commands in turn, each shown as the user would type it; ends at a failure.

    `<system>.demo.run(folder, recipes)` makes the synthetic data and yields the words of each
    command; it is asked for the next one when the last has ended well.
    """
    from launch.cli import main
    from training.record.run_folder import open_run_folder

    open_run_folder(folder)
    module = system_module(system, "demo")
    say(system, (module.__doc__ or "").splitlines()[0])
    for words in module.run(folder, recipes(system)):
        say(system, "podvision " + " ".join(words))
        # By the command line, so that what is shown is what runs.
        code = main(list(words))
        if code != EXIT_DONE:
            return code
        if stop.requested():  # training answered it by saving; the demo goes no further
            raise KeyboardInterrupt
    say(system, f"done; open {folder / 'run' / 'report.html'}")
    return EXIT_DONE


def recipes(system: str) -> Path:
    """The folder of a system's recipes in this installation."""
    import configs

    return Path(next(iter(configs.__path__))) / system


def say(system: str, sentence: str) -> None:
    print(f"\n[{system}] {sentence}", file=sys.stderr, flush=True)
