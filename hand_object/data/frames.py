"""Frames of a sequence: as examples (a number), and as arrays that lie on the devices.

Letters: T frames of the sequence, B boxes of a frame (object first, then hands by side).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from hand_object.config import BackgroundConfig
from hand_object.data.sequence import CLASS_OF, UNKNOWN, Sequence
from hand_object.data.sequence_access import Opened
from hand_object.fields.background import median_frame
from training.source import Example

MARGIN = 0.05  # of the longer side of a picture, around the mask of a node
GRAY = 0.5  # behind everything, where the background is constant


@dataclass(frozen=True)
class FrameSource:
    """Examples are `{"frame": number}`; `frames` are those of this source."""

    name: str
    frames: np.ndarray
    content: str

    @property
    def fingerprint(self) -> str:
        numbers = ",".join(map(str, self.frames.tolist()))
        return hashlib.blake2b(f"{self.content}\n{numbers}".encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Example:
        # A number only: the pictures lie on the devices for the whole run.
        return {"frame": np.asarray(self.frames[index], np.int32)}

    def identity(self, index: int) -> str:
        return f"{self.name}/{int(self.frames[index]):06d}"


def held_out(count: int, every: int) -> np.ndarray:
    """[T] bool: the last of each `every` frames, so that both neighbors of most are trained on."""
    return np.arange(count) % every == every - 1


def content_of(opened: Opened) -> str:
    """A fingerprint of pictures, masks and first poses."""
    content = hashlib.blake2b(opened.images.tobytes())
    content.update(opened.masks.tobytes())
    content.update(opened.sequence.intrinsics.tobytes())
    content.update(opened.sequence.world_to_camera.tobytes())
    for track in opened.sequence.hands.values():
        content.update(track.pose.tobytes() + track.translation.tobytes())
    if opened.sequence.object is not None:
        content.update(opened.sequence.object.axis_angle.tobytes())
        content.update(opened.sequence.object.translation.tobytes())
    return content.hexdigest()[:16]


def nodes_of(sequence: Sequence) -> tuple[str, ...]:
    """The object first, then hands by side."""
    thing = ("object",) if sequence.object is not None else ()
    return (*thing, *sorted(sequence.hands))


def frame_arrays(opened: Opened, background: BackgroundConfig) -> dict[str, Any]:
    """Arrays of all frames.

    Returns:
      images [T, H, W, 3] and masks [T, H, W] uint8, intrinsics [T, 3, 3], camera_to_scene
      [T, 4, 4] (positions in scene units), boxes [T, B, 4] (left, top, right, bottom; the ends are
      not inside), there [T, 4] bool (whether the node of a class has a pose in the frame), and
      backdrop [H, W, 3] uint8 where the background is no field.
    """
    sequence = opened.sequence
    camera = np.linalg.inv(sequence.world_to_camera.astype(np.float64))
    camera[:, :3, 3] *= sequence.scene_scale
    names = nodes_of(sequence)
    arrays = {
        "images": opened.images,
        "masks": opened.masks,
        "intrinsics": sequence.intrinsics.astype(np.float32),
        "camera_to_scene": camera.astype(np.float32),
        "boxes": np.stack([mask_boxes(opened.masks, CLASS_OF[name]) for name in names], axis=1),
        "there": _there(sequence),
    }
    if background.kind == "median_frame":
        foreground = (opened.masks != 0) & (opened.masks != UNKNOWN)
        backdrop = median_frame(opened.images, foreground)
        arrays["backdrop"] = np.rint(backdrop).astype(np.uint8)
    elif background.kind == "constant":
        gray = np.full((*sequence.size, 3), round(255 * GRAY), np.uint8)
        arrays["backdrop"] = gray
    return arrays


def mask_boxes(masks: np.ndarray, number: int) -> np.ndarray:
    """[T, 4] int32 boxes around a class with a margin; the whole picture where it is not seen."""
    height, width = masks.shape[1:]
    margin = round(MARGIN * max(height, width))
    boxes = np.tile(np.array([0, 0, width, height], np.int32), (len(masks), 1))
    for frame, mask in enumerate(masks == number):
        if mask.any():
            columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
            low = np.maximum([columns[0] - margin, rows[0] - margin], 0)
            high = np.minimum([columns[-1] + 1 + margin, rows[-1] + 1 + margin], [width, height])
            boxes[frame] = [*low, *high]
    return boxes


def _there(sequence: Sequence) -> np.ndarray:
    """[T, 4] by class; the background is always there."""
    there = np.zeros((len(sequence), 4), bool)
    there[:, 0] = True
    if sequence.object is not None:
        there[:, CLASS_OF["object"]] = sequence.object.valid
    for side, track in sequence.hands.items():
        there[:, CLASS_OF[side]] = track.valid
    return there
