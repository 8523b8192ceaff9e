"""What an exported graph says of itself: classes, canvas, inputs, outputs, and its command."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from rtdetr.config import Config
from rtdetr.data.dataset import ClassTable

SQUASH = "each axis is resized by itself until the image fills the canvas"
LETTERBOX = (
    "the image is resized, its aspect kept, until it touches two sides of the canvas; it lies in "
    "the upper left corner, and the rest is filled"
)


def facts(
    config: Config, classes: ClassTable, step: int, batch: int | str, args: argparse.Namespace
) -> dict[str, Any]:
    """For a JSON file.

    Args:
      batch: images at a time, or the name of an axis of any length.
    """
    height, width = config.data.size
    found: int | str = min(config.scoring.detections, queries_of(config) * len(classes))
    letterbox = config.data.resize == "letterbox"
    return {
        "classes": list(classes.names),
        "source_ids": list(classes.source_ids),
        "canvas": [height, width],
        "resize": LETTERBOX if letterbox else SQUASH,
        "fill": config.data.augment.fill,
        "inputs": {
            "images": f"uint8 [{batch}, {height}, {width}, 3], canvases, RGB, 0 to 255",
            "sizes": f"int32 [{batch}, 2], (height, width) in px of the images before resizing",
        },
        "outputs": {
            "scores": f"float32 [{batch}, {found}], best first; no threshold is applied",
            "labels": f"int32 [{batch}, {found}], places in the list of classes",
            "boxes": f"float32 [{batch}, {found}, 4], left, top, right, bottom in px of the image",
        },
        "step": step,
        "command": command_of(args, step),
    }


def queries_of(config: Config) -> int:
    """How many queries the exported network has."""
    return config.scoring.queries or config.model.decoder.queries


def command_of(args: argparse.Namespace, step: int) -> str:
    """The command that makes the same file again."""
    words = ["podvision", "export", "--workdir", str(args.workdir), "--step", str(step)]
    words += ["--format", args.format, "--output", str(args.output)]
    for name in ("batch", "top", "layers", "queries"):
        if getattr(args, name) is not None:
            words += [f"--{name}", str(getattr(args, name))]
    return shlex.join(words)
