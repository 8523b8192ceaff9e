"""`Finding`: what a check of a sequence says, in one sentence and with a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hand_object.data.sequence import Sequence
from training.errors import InputError

SHOWN = 12  # frames that are looked at, evenly spread
LEAST_OVERLAP = 0.3  # share of the points of a node under masks, below which it is elsewhere


@dataclass(frozen=True)
class Finding:
    """`level` is green, yellow or red; `picture` [H, W, 3] uint8 shows what is meant."""

    name: str
    level: str
    sentence: str
    picture: np.ndarray | None = None


def refuse_red(findings: list[Finding]) -> None:
    """Raises InputError with the sentence of the first red finding."""
    red = [finding for finding in findings if finding.level == "red"]
    if red:
        more = f" (and {len(red) - 1} more)" if len(red) > 1 else ""
        raise InputError(f"{red[0].sentence}{more}")


def shown_frames(sequence: Sequence) -> list[int]:
    """Numbers of the frames that checks look at."""
    return np.unique(np.linspace(0, len(sequence) - 1, SHOWN).round().astype(int)).tolist()


def overlay(sequence: Sequence, frame: int, points: np.ndarray, color=(255, 0, 255)) -> np.ndarray:
    """[H, W, 3] uint8 frame with world points [N, 3] drawn as dots."""
    picture = sequence.image(frame)
    x, y = pixels_of(sequence, frame, points).T
    picture[y, x] = color
    return picture


def pixels_of(sequence: Sequence, frame: int, points: np.ndarray) -> np.ndarray:
    """[n, 2] column and row of the points that are before the camera and in the picture."""
    local = in_camera(sequence, frame, points)
    local = local[local[:, 2] > 1e-6]
    places = local @ sequence.intrinsics[frame].T
    pixels = np.rint(places[:, :2] / places[:, 2:])
    height, width = sequence.size
    inside = np.all((pixels >= 0) & (pixels < [width, height]), axis=1)
    return pixels[inside].astype(int)


def in_camera(sequence: Sequence, frame: int, points: np.ndarray) -> np.ndarray:
    """World points [N, 3] in the axes of the camera of a frame, meters."""
    camera = sequence.world_to_camera[frame]
    return points @ camera[:3, :3].T + camera[:3, 3]
