"""A data set in memory, for tests: pictures drawn by a rule, or files as they are given."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from PIL import Image

from rtdetr.boxes import xywh_px
from rtdetr.data.dataset import ClassTable, Objects


@dataclass(frozen=True)
class Entry:
    """One image file, its size (height, width) and its objects (left, top, width, height)."""

    encoded: bytes
    size: tuple[int, int]
    boxes: Sequence[Sequence[float]] = ()
    labels: Sequence[int] = ()
    crowd: Sequence[bool] = ()


@dataclass(frozen=True)
class MemoryDataset:
    """A `rtdetr.data.dataset.Dataset`."""

    entries: Sequence[Entry]
    classes: ClassTable = field(default=ClassTable(("red", "green", "blue"), (1, 2, 3)))

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(repr(self.entries).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.entries)

    def encoded(self, index: int) -> bytes:
        return self.entries[index].encoded

    def objects(self, index: int) -> Objects:
        entry = self.entries[index]
        boxes = np.array(entry.boxes, np.float32).reshape(-1, 4)
        return Objects(
            boxes=xywh_px(boxes, np.array(entry.size)),
            labels=np.array(entry.labels, np.int32),
            crowd=np.array(entry.crowd or [False] * len(boxes), bool),
            areas=boxes[:, 2] * boxes[:, 3],
            ids=1000 * index + np.arange(len(boxes), dtype=np.int64),
        )

    def size(self, index: int) -> tuple[int, int]:
        return self.entries[index].size

    def image_id(self, index: int) -> int:
        return 100 + index

    def name(self, index: int) -> str:
        return f"image_{index}.png"

    def digest(self, index: int) -> str:
        return hashlib.sha256(self.encoded(index)).hexdigest()


COLORS = ((230, 20, 20), (20, 230, 20), (20, 20, 230))
GRAY = 120


def blocks(count: int = 6, most_objects: int = 3, seed: int = 0) -> MemoryDataset:
    """Gray pictures of several sizes with rectangles in the color of their class, as PNG files.

    Rectangles do not overlap; one picture in four has none.
    """
    generator = np.random.default_rng(seed)
    return MemoryDataset([_entry(generator, i, most_objects) for i in range(count)])


def _entry(generator: np.random.Generator, index: int, most_objects: int) -> Entry:
    height, width = int(generator.integers(60, 110)), int(generator.integers(60, 110))
    pixels = np.full((height, width, 3), GRAY, np.uint8)
    boxes, labels = [], []
    for place in range(0 if index % 4 == 3 else most_objects):
        # Each in a column of its own.
        column = width // most_objects
        w, h = int(generator.integers(8, column - 3)), int(generator.integers(8, height // 2))
        x, y = place * column + 2, int(generator.integers(1, height - h - 1))
        label = int(generator.integers(3))
        pixels[y : y + h, x : x + w] = COLORS[label]
        boxes.append((x, y, w, h))
        labels.append(label)
    return Entry(png(pixels), (height, width), boxes, labels)


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 [height, width, 3] RGB."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def painted_extent(pixels: np.ndarray, color: Sequence[int], tolerance: int = 60) -> np.ndarray:
    """Left, top, right, bottom of the pixels near to a color, from their edges."""
    near = (np.abs(pixels.astype(int) - color).max(axis=-1) <= tolerance).astype(np.uint8)
    x, y, width, height = cv2.boundingRect(near)
    return np.array([x, y, x + width, y + height], float)
