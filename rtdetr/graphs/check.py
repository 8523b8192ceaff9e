"""Does a written graph answer as the function does that it was made of?

Answers are compared as sets, because two detections with all but equal scores may change places.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import jax
import numpy as np

from rtdetr.boxes import xyxy_px
from rtdetr.config import Config
from rtdetr.data.augment import unchanged
from rtdetr.data.decode import decode
from rtdetr.data.picture import Picture
from rtdetr.data.prepared import open_split
from rtdetr.graphs.detection import Graph
from training.errors import InputError

LARGEST = 1e-4  # difference of scores, and of corners over the larger side of the image
# Of the detections; a query of all but equal score may have taken the last one's place.
SHARE = 0.99


class Example(NamedTuple):
    """Canvases uint8 `[B, H, W, 3]`, sizes int32 `[B, 2]` of the images, and what they show."""

    images: np.ndarray
    sizes: np.ndarray
    origin: str


def example_of(config: Config, batch: int) -> Example:
    """The first image of the evaluation split; a drawing where the data are not there."""
    try:
        dataset = open_split(config.data.folder, config.data.eval_split)
        pixels = decode(dataset.encoded(0), dataset.name(0))
        origin = dataset.name(0)
    except InputError:
        pixels, origin = _drawing(), "a drawing (the data of the run are not there)"
    size = np.array(pixels.shape[:2], np.int32)
    return Example(np.stack([canvas_of(pixels, config)] * batch), np.stack([size] * batch), origin)


def canvas_of(pixels: np.ndarray, config: Config) -> np.ndarray:
    """An image placed on the canvas of evaluation, uint8 `[H, W, 3]`."""
    data = config.data
    boxes = xyxy_px(np.zeros((0, 4)), np.array(pixels.shape[:2], np.int32))
    picture = Picture(pixels, boxes, np.zeros(0, np.int32))
    return unchanged(picture, data.size, data.resize, data.augment.fill).pixels


def _drawing() -> np.ndarray:
    """Two shapes on a slope of gray, 480 × 640 px."""
    slope = np.linspace(60, 180, 640).astype(np.uint8)
    pixels = np.ascontiguousarray(np.broadcast_to(slope[None, :, None], (480, 640, 3)))
    cv2.rectangle(pixels, (80, 120), (260, 330), (200, 40, 40), -1)
    cv2.circle(pixels, (450, 260), 90, (40, 80, 200), -1)
    return pixels


def verified(answers: list[np.ndarray], graph: Graph, example: Example, what: str) -> str:
    """What was compared, as a part of a sentence.

    Args:
      answers: scores, labels and boxes from the written file.
      graph: what they must agree with.
      what: the file, for the message.

    Raises:
      InputError: they differ by more than `LARGEST`.
    """
    wanted = [np.asarray(x) for x in jax.jit(graph)(example.images, example.sizes)]
    scores = float(np.abs(answers[0] - wanted[0]).max())
    share = _shared(answers, wanted, example.sizes)
    # Not `scores > LARGEST`: a difference that is no number must fail.
    if not (scores <= LARGEST and share >= SHARE):
        raise InputError(
            f"{what} does not answer as the network does on {example.origin}: scores differ by up "
            f"to {scores:.1e} and {share:.1%} of the detections are the same (allowed: "
            f"{LARGEST:g}, {SHARE:.0%}); do not use it, and report the versions of jax and onnx"
        )
    return (
        f"scores within {scores:.1e} of the network's on {example.origin}, and {share:.0%} of the "
        f"detections the same"
    )


def _shared(answers: list[np.ndarray], wanted: list[np.ndarray], sizes: np.ndarray) -> float:
    """Share of the wanted detections that an answer equals in class, score and box."""
    found = []
    for image, size in enumerate(sizes):
        (scores, labels, boxes), (s, l, b) = (
            [np.asarray(part[image]) for part in parts] for parts in (wanted, answers)
        )
        near = np.abs(boxes[:, None] - b[None]).max(axis=-1) <= LARGEST * size.max()
        equal = near & (labels[:, None] == l[None]) & (np.abs(scores[:, None] - s) <= LARGEST)
        found.append(equal.any(axis=1).mean())
    return float(np.mean(found))
