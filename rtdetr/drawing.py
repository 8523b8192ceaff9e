"""Detections on a photograph: boxes with class and score, in lines and letters of a size to read.

A class keeps its color in all pictures. Small photographs are enlarged only in comparisons: a drawn
frame must have the size of its video.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rtdetr.boxes import Boxes

GOLDEN = 0.618033988749895  # steps of hue that keep successive colors apart
SMALLEST_LETTERS, LETTERS = 10, 1 / 45  # height in px; and over the longer side of a picture
PANEL = 640  # longer side of one half of a comparison, px
GAP = 8  # px between the halves
INK, PAPER = (0, 0, 0), (255, 255, 255)
CROWD = " (crowd)"
Color = tuple[int, int, int]


def color_of(label: int) -> Color:
    """The color of a class: bright, so that black letters stand on it."""
    # Successive classes also differ in lightness: many hues look alike.
    red, green, blue = colorsys.hls_to_rgb(label * GOLDEN % 1.0, (0.6, 0.72)[label % 2], 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


def captions(
    labels: np.ndarray,
    names: Sequence[str],
    scores: np.ndarray | None = None,
    crowd: np.ndarray | None = None,
) -> list[str]:
    """What stands at each box: the class, with the score in percent or the mark of a crowd."""
    texts = [str(names[int(label)]) for label in labels]
    if scores is not None:
        texts = [f"{text} {100 * score:.0f}" for text, score in zip(texts, scores.tolist())]
    if crowd is not None:
        texts = [f"{text}{CROWD}" if many else text for text, many in zip(texts, crowd.tolist())]
    return texts


def drawn(pixels: np.ndarray, boxes: Boxes, labels: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """A copy of a photograph, uint8 `[height, width, 3]`, with its boxes.

    Args:
      boxes: pixel boxes; the first ones are drawn on top.
      texts: at each box.
    """
    picture = Image.fromarray(pixels)
    brush = ImageDraw.Draw(picture)
    longest = max(picture.size)
    font = ImageFont.load_default(max(SMALLEST_LETTERS, round(longest * LETTERS)))
    line = max(1, round(longest / 320))
    corners = boxes.corners().values.tolist()
    for box, label, text in list(zip(corners, labels.tolist(), texts))[::-1]:
        color = color_of(label)
        # Edges lie between pixels: the last pixel of a box is the one before its right edge.
        left, top, right, bottom = (round(edge) for edge in box)
        outline = (left, top, max(right - 1, left), max(bottom - 1, top))
        brush.rectangle(outline, outline=color, width=line)
        _write(brush, picture.size, (left, top), text, font, color)
    return np.asarray(picture)


def _write(
    brush: ImageDraw.ImageDraw,
    size: tuple[int, int],
    corner: tuple[int, int],
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    color: Color,
) -> None:
    """A label above a box, or inside where there is no room above; never outside of the picture."""
    left, top, right, bottom = brush.textbbox((0, 0), text, font=font)
    width, height = round(right) + 3, round(bottom) + 2
    x = min(max(corner[0], 0), max(size[0] - width, 0))
    y = corner[1] - height if corner[1] >= height else max(corner[1], 0)
    y = min(y, max(size[1] - height, 0))
    brush.rectangle((x, y, x + width, y + height), fill=color)
    brush.text((x + 2, y), text, fill=INK, font=font)


def resized(pixels: np.ndarray, boxes: Boxes, longest: int) -> tuple[np.ndarray, Boxes]:
    """A photograph and its pixel boxes with another longer side."""
    height, width = pixels.shape[:2]
    scale = longest / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    factor = np.array([size[0] / width, size[1] / height] * 2)
    return picture, Boxes(boxes.corners().values * factor, np.array(size[::-1]), "xyxy_px")


def compared(
    pixels: np.ndarray,
    truth: tuple[Boxes, np.ndarray, Sequence[str]],
    answer: tuple[Boxes, np.ndarray, Sequence[str]],
    title: str,
) -> np.ndarray:
    """Truth beside prediction under a title, uint8 `[height, width, 3]`.

    Args:
      truth, answer: boxes, labels and texts, as `drawn` takes them.
    """
    halves = []
    for boxes, labels, texts in (truth, answer):
        picture, moved = resized(pixels, boxes, PANEL)
        halves.append(drawn(picture, moved, labels, texts))
    height, width = halves[0].shape[:2]
    font = ImageFont.load_default(16)
    sheet = Image.new("RGB", (2 * width + GAP, height + 48), PAPER)
    brush = ImageDraw.Draw(sheet)
    brush.text((4, 2), title, fill=INK, font=font)
    for x, name, half in ((0, "truth", halves[0]), (width + GAP, "prediction", halves[1])):
        brush.text((x + 4, 24), name, fill=INK, font=font)
        sheet.paste(Image.fromarray(half), (x, 48))
    return np.asarray(sheet)
