"""A made-up video → training of hand and object → held-out frames, object surface → report."""

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
    recipe = f"{recipes / 'smoke.py'}:{sequence}"
    yield ["train", "--config", recipe, "--workdir", f"{workdir}"]
    yield ["evaluate", "--workdir", f"{workdir}"]
    yield ["report", "--workdir", f"{workdir}"]
