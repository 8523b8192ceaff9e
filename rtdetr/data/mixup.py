"""Two canvases blended over each other, with the objects of both (DEIM, Huang et al. 2025)."""

from __future__ import annotations

import cv2
import numpy as np

from rtdetr.boxes import cxcywh_norm
from rtdetr.data.picture import Canvas

SHARE = (0.45, 0.55)  # of the first one


def mixed(first: Canvas, second: Canvas, generator: np.random.Generator) -> Canvas:
    """Both at about half strength; canvases of one size.

    The objects of both count fully: the blend is so even that neither is in the background.
    """
    share = generator.uniform(*SHARE)
    pixels = cv2.addWeighted(first.pixels, share, second.pixels, 1 - share, 0.0)
    content = (
        max(first.content[0], second.content[0]),
        max(first.content[1], second.content[1]),
    )
    boxes = cxcywh_norm(np.concatenate([first.boxes.values, second.boxes.values]))
    return Canvas(pixels, content, boxes, np.concatenate([first.labels, second.labels]))
