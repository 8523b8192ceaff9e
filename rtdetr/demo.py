"""Drawn shapes in COCO's format → records → training → evaluation → predictions → report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def run(folder: Path, recipes: Path) -> Iterator[list[str]]:
    """Draws the images, then yields the commands of the demo.

    Args:
      folder: receives everything.
      recipes: folder of the recipes of this system.
    """
    from rtdetr.synthetic import write_dataset

    coco, records, workdir = folder / "coco", folder / "records", folder / "run"
    if not coco.exists():
        write_dataset(coco)
    yield ["prepare", "rtdetr", "--input", f"{coco}", "--output", f"{records}"]
    recipe = f"{recipes / 'smoke.py'}:{records}"
    yield ["train", "--config", recipe, "--workdir", f"{workdir}"]
    yield ["evaluate", "--workdir", f"{workdir}"]
    pictures = ["--input", f"{coco / 'val'}", "--output", f"{folder / 'predictions'}"]
    yield ["predict", "--workdir", f"{workdir}", *pictures]
    yield ["report", "--workdir", f"{workdir}"]
