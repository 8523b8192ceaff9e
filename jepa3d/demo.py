"""Synthetic OCT of four scanners as DICOM → records → pretraining → evaluation → report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

# Enough for the skill to rise above 0: of 24 people the encoder learned the volumes by heart.
PARTICIPANTS = 300


def run(folder: Path, recipes: Path) -> Iterator[list[str]]:
    """Writes the volumes, then yields the commands of the demo.

    Args:
      folder: receives everything.
      recipes: folder of the recipes of this system.
    """
    from jepa3d.synthetic import write_tree

    dicom, records, workdir = folder / "dicom", folder / "records", folder / "run"
    if not dicom.exists():
        write_tree(dicom, participants=PARTICIPANTS, diseased=True)
    shapes = ["--shape", "16,64,64", "--patch", "4,8,8"]
    yield ["prepare", "jepa3d", "--input", f"{dicom}", "--output", f"{records}", *shapes]
    recipe = f"{recipes / 'phantom.py'}:{records}"
    yield ["train", "--config", recipe, "--workdir", f"{workdir}", *probe(dicom)]
    yield ["evaluate", "--workdir", f"{workdir}"]
    yield ["report", "--workdir", f"{workdir}"]


def probe(dicom: Path) -> list[str]:
    """The options that have what the phantoms suffer from probed for."""
    settings = {
        "probe.labels": f"{dicom / 'participants.tsv'}",
        "probe.columns": "('outer_loss', 'drusen', 'thickness')",
        "checkpoint.best_metric": "probe/outer_loss",
    }
    return [f"--config.{key}={value}" for key, value in settings.items()]
