"""Drawn shapes with exact boxes, as a COCO data set: for the demo, and for tests of everything.

Circles, squares and triangles of several sizes and colors on a textured ground; some overlap. One
image of each split is empty, and one holds a crowd of small circles. The same seed draws the same
files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SHAPES = ("circle", "square", "triangle")
# Not consecutive, as in COCO: whoever takes an id for a label is found out.
SOURCE_IDS = (2, 3, 7)
SIDES = (0.14, 0.4)  # of a shape, over the shorter side of the image
CROWD = 12  # circles of a crowd


def write_dataset(
    folder: Path | str,
    train: int = 384,
    val: int = 24,
    size: tuple[int, int] = (128, 160),
    seed: int = 0,
) -> Path:
    """Writes `annotations/instances_{train,val}.json` and the images; returns the folder.

    Args:
      train, val: number of images, at least 2.
      size: (height, width) px.
    """
    folder = Path(folder)
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for part, (split, count) in enumerate((("train", train), ("val", val))):
        (folder / split).mkdir(exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(count):
            generator = np.random.default_rng([seed, part, number])
            name = f"{number:06d}.png"
            kind = {count - 1: "empty", count - 2: "crowd"}.get(number, "shapes")
            pixels, objects = draw_image(generator, size, kind)
            cv2.imwrite(str(folder / split / name), pixels[..., ::-1])
            identity = 1000 * (part + 1) + number
            images.append({"id": identity, "file_name": name, "height": size[0], "width": size[1]})
            for item in objects:
                row = {"id": len(annotations) + 1, "image_id": identity}
                annotations.append(row | item)
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": i, "name": n} for i, n in zip(SOURCE_IDS, SHAPES)],
        }
        path = folder / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
    return folder


def draw_image(
    generator: np.random.Generator, size: tuple[int, int], kind: str = "shapes"
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """uint8 `[height, width, 3]` RGB and its objects as COCO rows.

    Args:
      kind: "shapes", "empty" or "crowd" (one crowd and one single shape).
    """
    pixels = _ground(generator, size)
    objects = []
    if kind == "crowd":
        objects.append(_draw_crowd(pixels, generator))
    count = {"empty": 0, "crowd": 1}.get(kind, int(generator.integers(1, 6)))
    for _ in range(count):
        objects.append(_draw_shape(pixels, generator))
    return pixels, objects


def _ground(generator: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    coarse = generator.uniform(60, 150, (size[0] // 16 + 1, size[1] // 16 + 1, 3))
    smooth = cv2.resize(coarse.astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + generator.normal(0, 6, (*size, 3)), 0, 255).astype(np.uint8)


def _color(generator: np.random.Generator) -> tuple[int, int, int]:
    """Bright or dark, so that a shape stands out from the middle gray of the ground."""
    low, high = ((190, 256), (0, 50))[int(generator.integers(2))]
    red, green, blue = (int(value) for value in generator.integers(low, high, 3))
    return red, green, blue


def _draw_shape(pixels: np.ndarray, generator: np.random.Generator) -> dict[str, Any]:
    height, width = pixels.shape[:2]
    side = int(min(height, width) * generator.uniform(*SIDES))
    left = int(generator.integers(0, width - side))
    top = int(generator.integers(0, height - side))
    label = int(generator.integers(len(SHAPES)))
    color, last = _color(generator), side - 1
    if label == 0:
        # An odd diameter has a middle pixel.
        side -= 1 - side % 2
        center = (left + side // 2, top + side // 2)
        cv2.circle(pixels, center, side // 2, color, cv2.FILLED)
        area = np.pi * side * side / 4
    elif label == 1:
        cv2.rectangle(pixels, (left, top), (left + last, top + last), color, cv2.FILLED)
        area = float(side * side)
    else:
        corners = [(left, top + last), (left + last, top + last), (left + last // 2, top)]
        cv2.fillPoly(pixels, [np.array(corners)], color)
        area = side * side / 2
    return _row((left, top, side, side), label, float(area), crowd=False)


def _draw_crowd(pixels: np.ndarray, generator: np.random.Generator) -> dict[str, Any]:
    """Many circles of 9 px within one box."""
    height, width = pixels.shape[:2]
    left, top, side = width // 8, height // 8, min(height, width) // 2
    for _ in range(CROWD):
        x, y = (int(value) for value in generator.integers(4, side - 4, 2))
        cv2.circle(pixels, (left + x, top + y), 4, _color(generator), cv2.FILLED)
    return _row((left, top, side, side), 0, float(CROWD * 64), crowd=True)


def _row(box: tuple[int, int, int, int], label: int, area: float, crowd: bool) -> dict[str, Any]:
    return {
        "bbox": [float(value) for value in box],
        "category_id": SOURCE_IDS[label],
        "area": area,
        "iscrowd": int(crowd),
    }
