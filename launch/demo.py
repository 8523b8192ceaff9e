"""See podvision work on synthetic data: data, training, evaluation from a checkpoint, report.

Runs on a CPU in minutes and needs no data, account or network.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("system", nargs="?", choices=sorted(DEMOS), help="one system (all)")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/demo"), metavar="DIR", help="(runs/demo)"
    )


def run(args: argparse.Namespace) -> int:
    from training.record.run_folder import open_run_folder

    open_run_folder(args.output)
    for system in [args.system] if args.system else DEMOS:
        code = DEMOS[system](args.output / system)
        if code:
            return code
    return 0


def jepa3d(folder: Path) -> int:
    """Synthetic OCT of four scanners → records → pretraining → evaluation → report."""
    from jepa3d.synthetic import write_tree

    say("jepa3d", "writing synthetic OCT volumes of four scanners as DICOM")
    if not (folder / "dicom").exists():
        write_tree(folder / "dicom")
    workdir = folder / "run"
    records = folder / "records"
    shapes = ["--shape", "16,64,64", "--patch", "4,8,8"]
    return run_all(
        "jepa3d",
        workdir,
        ["prepare", "jepa3d", "--input", f"{folder / 'dicom'}", "--output", f"{records}", *shapes],
        ["train", "--config", f"{recipe('jepa3d/smoke.py')}:{records}", "--workdir", f"{workdir}"],
        ["evaluate", "--workdir", f"{workdir}"],
        ["report", "--workdir", f"{workdir}"],
    )


def splats(folder: Path) -> int:
    """A synthetic scene → training with densification → held-out PSNR → report."""
    from splats.synthetic import write_scene

    say("splats", "ray-casting a synthetic scene and its COLMAP model")
    scene = folder / "scene"
    if not scene.exists():
        write_scene(scene)
    workdir = folder / "run"
    return run_all(
        "splats",
        workdir,
        ["prepare", "splats", "--input", f"{scene}"],
        ["train", "--config", f"{recipe('splats/smoke.py')}:{scene}", "--workdir", f"{workdir}"],
        ["evaluate", "--workdir", f"{workdir}"],
        ["report", "--workdir", f"{workdir}"],
    )


DEMOS: dict[str, Callable[[Path], int]] = {"jepa3d": jepa3d, "splats": splats}


def recipe(name: str) -> Path:
    """Path of a recipe of this installation."""
    import configs

    return Path(next(iter(configs.__path__))) / name


def run_all(system: str, workdir: Path, *commands: list[str]) -> int:
    """Runs commands in turn, each shown as the user would type it; ends at the first failure."""
    from launch.cli import main

    for command in commands:
        say(system, "podvision " + " ".join(command))
        code = main(command)
        if code:
            return code
    say(system, f"done; open {workdir / 'report.html'}")
    return 0


def say(system: str, sentence: str) -> None:
    print(f"\n[{system}] {sentence}", file=sys.stderr, flush=True)
