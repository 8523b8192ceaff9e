"""Large pictures in overlapping tiles: small objects keep their pixels on the network's canvas.

A *window* is the whole picture or one of its tiles; each is detected by itself. An object that is
seen in several windows is then one detection: the best one of its class takes those of the *other*
windows that overlap it (within a window nothing is merged: the network needs no suppression there).
A box is *cut* where it touches a border of its window that is no border of the picture. The merged
box is the mean, weighted by the scores, of those at least half as sure as the best one that are not
cut; where all are, their hull.
An object that no window shows whole is found in pieces, so the overlap should be as large as the
objects that the whole picture is too coarse for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rtdetr.boxes import xyxy_px
from rtdetr.pictures_in import Frame
from rtdetr.scoring.found import Found, nothing, overlap
from training.errors import ConfigError

LEAST_TILE = 32  # px, the stride of the coarsest map
SAME = 0.5  # IoU from which boxes of two windows are one object
PIECE = 0.7  # or this share of a cut box inside of the other one
SURE = 0.5  # of the best score: boxes with less have no say in where the merged box lies
NEAR = 0.01  # of the side of a window: a box that ends so near to a border touches it


@dataclass(frozen=True)
class Tiling:
    """How pictures are cut.

    Attributes:
      side: of a tile, px of the picture.
      share: of the side that neighbors have in common, at least.
    """

    side: int
    share: float

    def __post_init__(self):
        if self.side < LEAST_TILE:
            raise ConfigError(f"--tile {self.side}: give at least {LEAST_TILE} px")
        if not 0 <= self.share <= 0.8:
            raise ConfigError(f"--overlap {self.share}: give a share of the tile from 0 to 0.8")

    def windows(self, size: tuple[int, int]) -> list[Window]:
        """The whole picture of `size` (height, width), then its tiles, row by row."""
        whole = Window(0, 0, *size)
        tops, lefts = (self._starts(length) for length in size)
        if len(tops) == len(lefts) == 1:
            return [whole]
        tiles = [
            Window(top, left, min(top + self.side, size[0]), min(left + self.side, size[1]))
            for top in tops
            for left in lefts
        ]
        return [whole, *tiles]

    def _starts(self, length: int) -> list[int]:
        """First pixels of the tiles along an axis, evenly spread."""
        if length <= self.side:
            return [0]
        common = int(np.ceil(self.side * self.share))
        count = -(-(length - common) // (self.side - common))
        return np.linspace(0, length - self.side, count).astype(int).tolist()


@dataclass(frozen=True)
class Window:
    """A part of a picture, px."""

    top: int
    left: int
    bottom: int
    right: int

    def cut(self, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """`[N]` bool: which boxes `[N, 4]` (corners on the picture of `size`) are cut."""
        near_x, near_y = (NEAR * side for side in (self.right - self.left, self.bottom - self.top))
        touches = [
            (boxes[:, 0] <= self.left + near_x) & (self.left > 0),
            (boxes[:, 1] <= self.top + near_y) & (self.top > 0),
            (boxes[:, 2] >= self.right - near_x) & (self.right < size[1]),
            (boxes[:, 3] >= self.bottom - near_y) & (self.bottom < size[0]),
        ]
        return np.any(touches, axis=0)


@dataclass(frozen=True)
class Tile(Frame):
    """The pixels of one window of a picture.

    Attributes:
      picture: the picture.
      window: where it lies.
      last: it is the last one of its picture.
    """

    picture: Frame
    window: Window
    last: bool


def tiles_of(frames: Iterable[Frame], tiling: Tiling) -> Iterator[Frame]:
    """The windows of every frame; a frame that could not be read as it is."""
    for frame in frames:
        if isinstance(frame.pixels, str):
            yield frame
            continue
        height, width = frame.pixels.shape[:2]
        windows = tiling.windows((height, width))
        for number, window in enumerate(windows):
            pixels = frame.pixels[window.top : window.bottom, window.left : window.right]
            last = number == len(windows) - 1
            yield Tile(frame.name, frame.id, np.ascontiguousarray(pixels), frame, window, last)


def joined(detected: Iterable[tuple[Frame, Found]], most: int) -> Iterator[tuple[Frame, Found]]:
    """The pictures with their detections, from those of all their windows in order.

    Args:
      most: detections of a picture.
    """
    windows: list[Window] = []
    parts: list[Found] = []
    for tile, found in detected:
        assert isinstance(tile, Tile)
        windows.append(tile.window)
        parts.append(found)
        if tile.last:
            height, width = np.shape(tile.picture.pixels)[:2]
            yield tile.picture, merged(windows, parts, (height, width), most)
            windows, parts = [], []


def merged(
    windows: Sequence[Window], parts: Sequence[Found], size: tuple[int, int], most: int
) -> Found:
    """One list of detections of a picture of `size` (height, width), best first.

    Args:
      windows, parts: each window, and what was found on it, in its own pixels.
      most: detections that are kept.
    """
    shifts = [np.array([w.left, w.top, w.left, w.top], np.float64) for w in windows]
    boxes = np.concatenate([p.boxes.corners().values + s for p, s in zip(parts, shifts)])
    cut = np.concatenate(
        [
            window.cut(part.boxes.corners().values + shift, size)
            for window, part, shift in zip(windows, parts, shifts)
        ]
    )
    source = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    labels, scores = (np.concatenate([getattr(p, n) for p in parts]) for n in ("labels", "scores"))
    kept: list[tuple[float, int, np.ndarray]] = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        own = own[np.argsort(-scores[own], kind="stable")]
        for box, score in _merged_class(boxes[own], scores[own], cut[own], source[own]):
            kept.append((score, int(label), box))
    if not kept:
        return nothing(size)
    kept.sort(key=lambda item: -item[0])
    kept = kept[:most]
    return Found(
        xyxy_px(np.array([box for _, _, box in kept]), np.array(size)),
        np.array([label for _, label, _ in kept], labels.dtype),
        np.array([score for score, _, _ in kept]),
    )


def _merged_class(
    boxes: np.ndarray, scores: np.ndarray, cut: np.ndarray, source: np.ndarray
) -> Iterator[tuple[np.ndarray, float]]:
    """Box and score of each object of one class; the detections come best first."""
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=-1)
    free = np.ones(len(boxes), bool)

    def alike(one: int) -> np.ndarray:
        """Which free detections of other windows are the object of this one, or a piece of it."""
        iou = overlap(boxes[one : one + 1], boxes)[0]
        shared = iou * (areas[one] + areas) / (1 + iou)  # since iou = shared / (a + b - shared)
        piece = (shared >= PIECE * areas) & cut
        if cut[one]:
            piece |= shared >= PIECE * areas[one]
        return free & (source != source[one]) & ((iou >= SAME) | piece)

    for best in range(len(boxes)):
        if not free[best]:
            continue
        group = alike(best)
        group[best] = True
        sure = scores >= SURE * scores[best]
        whole = np.flatnonzero(group & sure & ~cut)
        if cut[best] and len(whole):
            group |= alike(whole[0])  # other pieces, which this piece does not touch
        free &= ~group
        yield _one_box(boxes, scores, cut, group & sure), scores[best]


def _one_box(
    boxes: np.ndarray, scores: np.ndarray, cut: np.ndarray, group: np.ndarray
) -> np.ndarray:
    whole = group & ~cut
    if not whole.any():
        return np.concatenate([boxes[group, :2].min(axis=0), boxes[group, 2:].max(axis=0)])
    # A score may be 0 in float32, and not all weights may be.
    weights = np.maximum(scores[whole], np.finfo(np.float32).tiny)
    return np.average(boxes[whole], axis=0, weights=weights)
