"""A made-up video → pictures, prior, contact and smooth motion in three stages → report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def run(folder: Path, recipes: Path) -> Iterator[list[str]]:
    """Yields the commands of the demo; the first one makes the sequence.

    Args:
      folder: receives everything.
      recipes: folder of the recipes of this system.
    """
    sequence, workdir = folder / "sequence", folder / "run"
    made = [] if sequence.exists() else ["--synthetic"]
    yield ["prepare", "hand_object", "--input", f"{sequence}", *made]
    recipe = f"{recipes / 'pipeline.py'}:{sequence},smoke"
    yield ["train", "--config", recipe, "--workdir", f"{workdir}"]
    yield ["evaluate", "--workdir", f"{workdir / 'contact_temporal'}"]
    yield ["report", "--workdir", f"{workdir}"]
