"""Which way cameras look: OpenCV's axes (y down, z forward) or OpenGL's (y up, z backward).

Both are written into `world_mat` by preparations, and nothing in a file says which. What is known
is where hands and object are: they lie before the camera and under the masks in one of the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hand_object.data.finding import (
    LEAST_OVERLAP,
    Finding,
    in_camera,
    overlay,
    pixels_of,
    shown_frames,
)
from hand_object.data.node_points import node_points, node_valid
from hand_object.data.sequence import BACKGROUND, Sequence
from hand_object.hands.model import HandModel

CAMERAS = ("auto", "opencv", "opengl")
_FLIP = np.diag([1.0, -1, -1, 1]).astype(np.float32)


def settle_axes(
    sequence: Sequence, models: Mapping[str, HandModel], camera: str
) -> tuple[Sequence, Finding]:
    """The sequence with OpenCV's cameras, and what its cameras were taken for.

    Args:
      models: hand model by side; hands without one do not count.
      camera: one of CAMERAS.
    """
    if camera == "opencv":
        return sequence, Finding("camera axes", "green", "OpenCV's, as the settings say")
    turned = replace(sequence, world_to_camera=_FLIP @ sequence.world_to_camera)
    if camera == "opengl":
        return turned, Finding("camera axes", "green", "OpenGL's, as the settings say")
    points = node_points(sequence, models)
    if not points or _ahead(sequence, points) >= 0.5:
        return sequence, Finding("camera axes", "green", "OpenCV's: hands and object lie ahead")
    share = _under_masks(turned, points)
    if _ahead(turned, points) >= 0.5 and share >= LEAST_OVERLAP:
        sentence = (
            "read as OpenGL's (y up, z backward): in OpenCV's hands and object lie behind the "
            f"cameras, in OpenGL's at least {share:.0%} of each lie under the masks"
        )
        return turned, Finding("camera axes", "green", sentence)
    frame = shown_frames(sequence)[0]
    shown = np.concatenate([own[frame] for own in points.values()])
    sentence = (
        f"{sequence.name}: hands and object lie behind the cameras in OpenCV's axes, and in "
        f"OpenGL's only {share:.0%} of one lie under the masks; world_mat has to be K [R | t] "
        "with [R | t] from world to camera (not its inverse); where that is so, say which axes by "
        "config.sequence.camera (prepare: --camera) = opencv or opengl"
    )
    return sequence, Finding("camera axes", "red", sentence, overlay(turned, frame, shown))


def _ahead(sequence: Sequence, points: Mapping[str, np.ndarray]) -> float:
    """Share of the points that lie before the cameras, mean over nodes and frames."""
    shares = [
        np.mean(in_camera(sequence, frame, own[frame])[:, 2] > 0)
        for name, own in points.items()
        for frame in shown_frames(sequence)
        if node_valid(sequence, name)[frame]
    ]
    return float(np.mean(shares)) if shares else 1.0


def _under_masks(sequence: Sequence, points: Mapping[str, np.ndarray]) -> float:
    """Share of the points that project on a mask of any node; in the picture where there is none.

    The least of all nodes: an object at the center lies under its mask upside down as well.
    """
    masks = {frame: sequence.mask(frame) for frame in shown_frames(sequence)}
    least = 1.0
    for name, own in points.items():
        shares = []
        for frame, mask in masks.items():
            if node_valid(sequence, name)[frame]:
                x, y = pixels_of(sequence, frame, own[frame]).T
                shares.append(np.sum(mask[y, x] != BACKGROUND) / len(own[frame]))
        least = min(least, float(np.mean(shares)) if shares else 1.0)
    return least
