"""When a hand holds the object, and with which of its zones: what the data says before training.

A hand holds the object in a frame where both are there, its skin is near to the first guess of the
object's surface, and their masks touch (where there are masks). Short breaks are closed: poses of a
preprocessing tremble. A zone touches throughout a grasp where it is near in most of its frames.
Numpy; letters: T frames, V vertices, Z zones, N points of the object.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from scipy.ndimage import binary_closing, binary_dilation
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from hand_object.data.sequence import CLASS_OF, OBJECT, UNKNOWN, ObjectTrack
from hand_object.data.sequence_access import Opened
from hand_object.hands.skinning import pose_hand
from hand_object.hands.zones import ZONES, contact_zones
from hand_object.render.scene_placement import Statics

NEAR = 0.02  # meters between skin and object where they may touch
REACH = 0.02  # of the longer side of a picture, over which masks still touch
BREAK = 3  # frames; shorter breaks of a grasp are closed
_pose = jax.jit(pose_hand)


class Grasp(NamedTuple):
    """zones [Z, V], touching [T, Z] and holding [T], all bool."""

    zones: np.ndarray
    touching: np.ndarray
    holding: np.ndarray


def find_grasps(opened: Opened, statics: Statics) -> dict[str, Grasp]:
    """Of each hand of a sequence, by side; none where there is no object."""
    thing = opened.sequence.object
    if thing is None:
        return {}
    found = {}
    for side, track in opened.sequence.hands.items():
        model = statics.hands[side].model
        posed = _pose(model, np.float32(track.pose), np.float32(track.translation))
        gaps = object_distances(np.asarray(posed.vertices), thing)
        there = track.valid & thing.valid
        near = there & (gaps.min(axis=1) < NEAR) & masks_touch(opened.masks, CLASS_OF[side])
        members = contact_zones(model)
        zones = np.stack([np.isin(np.arange(gaps.shape[1]), members[name]) for name in ZONES])
        holding = closed(near) & there
        found[side] = Grasp(zones, touching_zones(gaps, zones, holding), holding)
    return found


def object_distances(vertices: np.ndarray, thing: ObjectTrack) -> np.ndarray:
    """[T, V] meters from skin [T, V, 3] to the nearest point of the first guess of the object."""
    points = thing.points * thing.radius + thing.center
    tree = KDTree(points * thing.scale)
    turns = Rotation.from_rotvec(thing.axis_angle).as_matrix()
    local = np.einsum("tba,tvb->tva", turns, vertices - thing.translation[:, None])
    return tree.query(local)[0]


def masks_touch(masks: np.ndarray, number: int) -> np.ndarray:
    """[T] whether the masks [T, H, W] of a hand and the object meet; True where there are none."""
    width = max(1, round(REACH * max(masks.shape[1:])))
    square = np.ones((2 * width + 1, 2 * width + 1), bool)
    touch = np.ones(len(masks), bool)
    for frame, mask in enumerate(masks):
        if not (mask == UNKNOWN).any():
            hand = binary_dilation(mask == number, square)
            touch[frame] = bool((hand & (mask == OBJECT)).any())
    return touch


def closed(holding: np.ndarray) -> np.ndarray:
    """[T] with breaks of up to `BREAK` frames closed."""
    padded = np.pad(holding, BREAK + 1)
    return binary_closing(padded, np.ones(BREAK + 1, bool))[BREAK + 1 : -BREAK - 1] | holding


def touching_zones(gaps: np.ndarray, zones: np.ndarray, holding: np.ndarray) -> np.ndarray:
    """[T, Z] of distances [T, V]: by the median of each grasp, a run of frames that hold."""
    far = np.full(gaps.shape, np.inf)
    nearest = np.stack([np.where(zone, gaps, far).min(axis=1) for zone in zones], axis=1)
    touching = np.zeros(nearest.shape, bool)
    edges = np.flatnonzero(np.diff(np.pad(holding.astype(np.int8), 1)))
    for start, stop in edges.reshape(-1, 2):
        touching[start:stop] = np.median(nearest[start:stop], axis=0) < NEAR
    return touching
