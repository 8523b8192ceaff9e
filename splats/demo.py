"""A ray-cast synthetic scene → training with densification → held-out PSNR → report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def run(folder: Path, recipes: Path) -> Iterator[list[str]]:
    """Writes the scene, then yields the commands of the demo.

    Args:
      folder: receives everything.
      recipes: folder of the recipes of this system.
    """
    from splats.synthetic import write_scene

    scene, workdir = folder / "scene", folder / "run"
    if not scene.exists():
        write_scene(scene)
    yield ["prepare", "splats", "--input", f"{scene}"]
    recipe = f"{recipes / 'smoke.py'}:{scene}"
    yield ["train", "--config", recipe, "--workdir", f"{workdir}"]
    yield ["evaluate", "--workdir", f"{workdir}"]
    yield ["report", "--workdir", f"{workdir}"]
