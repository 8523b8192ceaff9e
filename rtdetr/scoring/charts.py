"""Pictures of scores: curves over the score, and the matrix of confusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, MARGIN = 640, 420, 56  # px of a chart
INK, GRID, PAPER = (30, 30, 30), (220, 220, 220), (255, 255, 255)
CURVES = ((31, 119, 180), (214, 96, 20), (30, 140, 60))
DARKEST = np.array([20, 70, 150])  # of the matrix


def curves_over_score(
    thresholds: np.ndarray, curves: Mapping[str, np.ndarray], best: int, title: str
) -> np.ndarray:
    """uint8 `[height, width, 3]`: curves in [0, 1] over the score, with a mark at the best one."""
    sheet = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    brush, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    right, bottom = WIDTH - 20, HEIGHT - MARGIN

    def point(x: float, y: float) -> tuple[float, float]:
        return MARGIN + x * (right - MARGIN), bottom - y * (bottom - MARGIN)

    for tick in np.linspace(0, 1, 6).tolist():
        brush.line([point(tick, 0), point(tick, 1)], GRID)
        brush.line([point(0, tick), point(1, tick)], GRID)
        (x, y), (_, level) = point(tick, 0), point(0, tick)
        brush.text((x, y + 6), f"{tick:.1f}", INK, font, anchor="mt")
        brush.text((MARGIN - 6, level), f"{tick:.1f}", INK, font, anchor="rm")
    brush.text((WIDTH / 2, HEIGHT - 10), "score", INK, font, anchor="ms")
    brush.text((MARGIN, 6), title, INK, ImageFont.load_default(16))
    at = float(thresholds[best])
    brush.line([point(at, 0), point(at, 1)], INK)
    for i, (name, values) in enumerate(curves.items()):
        color = CURVES[i % len(CURVES)]
        places = [point(x, y) for x, y in zip(thresholds.tolist(), values.tolist())]
        brush.line(places, color, 3, joint="curve")
        legend = f"{name} ({values[best]:.2f} at {at:.2f})"
        brush.text((MARGIN + i * 190, 30), legend, color, font)
    return np.asarray(sheet)


def confusion_picture(matrix: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """uint8 `[height, width, 3]`: each row is darkened by its share, with the counts.

    Args:
      matrix: `[N, N]` counts, rows are what is there.
      names: of the N rows and columns.
    """
    cell = 64 if len(names) <= 12 else 36
    font = ImageFont.load_default(14 if cell == 64 else 11)
    room = 12 + max(round(font.getlength(name)) for name in names)
    side = room + cell * len(names)
    sheet = Image.new("RGB", (side + 24, side + 24), PAPER)
    brush = ImageDraw.Draw(sheet)
    brush.text((4, 4), "rows: there, columns: said", INK, font)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    for i, name in enumerate(names):
        middle = 24 + room + (i + 0.5) * cell
        brush.text((room + 18, middle), name, INK, font, anchor="rm")
        _upright(sheet, name, (middle, 20 + room), font)
        for j in range(len(names)):
            x, y = 24 + room + j * cell, 24 + room + i * cell
            fill = np.rint(255 + share[i, j] * (DARKEST - 255)).astype(int).tolist()
            brush.rectangle((x, y, x + cell, y + cell), tuple(fill), GRID)
            ink = PAPER if share[i, j] > 0.5 else INK
            if matrix[i, j]:
                text = f"{int(matrix[i, j])}"
                brush.text((x + cell / 2, y + cell / 2), text, ink, font, anchor="mm")
    return np.asarray(sheet)


def _upright(
    sheet: Image.Image,
    text: str,
    foot: tuple[float, float],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Text that runs upwards and ends above a place."""
    strip = Image.new("RGB", (round(font.getlength(text)) + 4, 20), PAPER)
    ImageDraw.Draw(strip).text((2, 10), text, INK, font, anchor="lm")
    turned = strip.rotate(90, expand=True)
    sheet.paste(turned, (round(foot[0] - 10), round(foot[1] - turned.height)))
