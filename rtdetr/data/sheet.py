"""Examples side by side with their boxes, to look at before a run: what the loss is given.

The boxes are read from the arrays of the batch, after all that happened to image and objects, so a
wrong map, format or order of channels shows at the first glance.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from rtdetr.boxes import cxcywh_norm
from rtdetr.targets import NO_OBJECT
from training.source import Example

# One color for each label in turn, far apart from each other (RGB).
COLORS = ((255, 220, 0), (0, 200, 255), (255, 80, 200), (90, 255, 90), (255, 140, 40))
PADDING = (255, 0, 255)  # the line between content and padding


def sheet(examples: Sequence[Example], names: Sequence[str], columns: int) -> np.ndarray:
    """Examples of one size in rows of `columns`.

    Args:
      examples: as `DetectionSource` gives them.
      names: of the classes, by label.

    Returns:
      uint8 [rows · height, columns · width, 3] RGB.
    """
    tiles = [drawn(example, names) for example in examples]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    return np.vstack(rows)


def drawn(example: Example, names: Sequence[str]) -> np.ndarray:
    """The image of an example with the boxes and names of its objects, uint8 RGB."""
    pixels = example["image"].copy()
    height, width = pixels.shape[:2]
    found = example["labels"] != NO_OBJECT
    corners = cxcywh_norm(example["boxes"][found]).pixels(np.array([height, width])).values
    for label, box in zip(example["labels"][found].tolist(), corners):
        color = COLORS[label % len(COLORS)]
        left, top, right, bottom = (round(edge) for edge in box.tolist())
        # Edges lie between pixels: the last pixel of a box is the one before its right edge.
        cv2.rectangle(pixels, (left, top), (right - 1, bottom - 1), color, 1)
        place = left + 2, max(top, 0) + 12
        cv2.putText(pixels, names[int(label)], place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, color, 1)
    rows, columns = example["content"].tolist()
    if rows < height:
        cv2.line(pixels, (0, rows), (width, rows), PADDING, 1)
    if columns < width:
        cv2.line(pixels, (columns, 0), (columns, height), PADDING, 1)
    return pixels
