"""Zoom-out: the image becomes smaller inside of a filled surrounding (SSD, Liu et al. 2016)."""

from __future__ import annotations

import numpy as np

from rtdetr.data.geometry import Size, Window


def zoomed_out(
    size: Size, generator: np.random.Generator, probability: float, largest: float
) -> Window:
    """A window that reaches beyond an image of this size, or just shows it.

    Args:
      probability: of a zoom.
      largest: the window has 1 … `largest` times the height and width of the image, which lies
        anywhere in it.
    """
    height, width = size
    if generator.random() >= probability:
        return Window(0, 0, width, height)
    factor = generator.uniform(1, largest)
    rows, columns = int(height * factor), int(width * factor)
    top = int((rows - height) * generator.random())
    left = int((columns - width) * generator.random())
    return Window(-left, -top, columns - left, rows - top)
