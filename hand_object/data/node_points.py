"""Where nodes are in the world by the poses of the data: skin of hands, points of the object."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np
from scipy.spatial.transform import Rotation

from hand_object.data.sequence import HandTrack, Sequence
from hand_object.hands.model import HandModel
from hand_object.hands.skinning import PosedHand, pose_hand

_pose = jax.jit(pose_hand)


def node_points(sequence: Sequence, models: Mapping[str, HandModel]) -> dict[str, np.ndarray]:
    """[T, n, 3] meters by node: vertices of hands that have a model, first points of the object."""
    points = {
        side: np.asarray(posed_track(models[side], track).vertices)
        for side, track in sequence.hands.items()
        if side in models and len(models[side].joints) == track.pose.shape[1]
    }
    thing = sequence.object
    if thing is not None and len(thing.points):
        raw = (thing.points * thing.radius + thing.center) * thing.scale
        turns = Rotation.from_rotvec(thing.axis_angle).as_matrix()
        points["object"] = np.einsum("tab,nb->tna", turns, raw) + thing.translation[:, None]
    return points


def node_valid(sequence: Sequence, name: str) -> np.ndarray:
    """[T] frames in which a node has a pose."""
    if name == "object":
        assert sequence.object is not None
        return sequence.object.valid
    return sequence.hands[name].valid


def posed_track(model: HandModel, track: HandTrack) -> PosedHand:
    """The hand of all frames, in its shape where the shape is one of this model."""
    fits = len(track.shape) == model.shape_size
    shape = track.shape if fits else np.zeros(model.shape_size, np.float32)
    return _pose(model, track.pose, track.translation, shape)
