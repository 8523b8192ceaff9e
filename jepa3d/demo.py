"""Synthetic OCT of four scanners as DICOM → records → pretraining → evaluation → report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def run(folder: Path, recipes: Path) -> Iterator[list[str]]:
    """Writes the volumes, then yields the commands of the demo.

    Args:
      folder: receives everything.
      recipes: folder of the recipes of this system.
    """
    from jepa3d.synthetic import write_tree

    dicom, records, workdir = folder / "dicom", folder / "records", folder / "run"
    if not dicom.exists():
        write_tree(dicom)
    shapes = ["--shape", "16,64,64", "--patch", "4,8,8"]
    yield ["prepare", "jepa3d", "--input", f"{dicom}", "--output", f"{records}", *shapes]
    recipe = f"{recipes / 'smoke.py'}:{records}"
    yield ["train", "--config", recipe, "--workdir", f"{workdir}"]
    yield ["evaluate", "--workdir", f"{workdir}"]
    yield ["report", "--workdir", f"{workdir}"]
