"""What is exactly known of a sequence: `ground_truth.npz` beside its build folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hand_object.data.array_file import read_arrays
from hand_object.data.sequence import Sequence
from hand_object.hands.model import HandModel
from hand_object.meshing import Mesh
from hand_object.reconstruction import MovingObject, Reconstruction, moving_hand
from training.errors import InputError

_KEYS = ("hand_pose_axis_angle", "hand_trans", "object_to_world", "object_vertices", "object_faces")


def read_ground_truth(
    path: Path, sequence: Sequence, models: Mapping[str, HandModel]
) -> Reconstruction:
    """The truth of a sequence with one hand.

    Args:
      path: of the .npz file.
      models: hand model by side, of the side that the sequence has.

    Raises:
      InputError: the file is missing, is no ground truth, or is that of another sequence.
    """
    return ground_truth(read_arrays(path), sequence, models, str(path))


def ground_truth(
    held: Mapping[str, np.ndarray], sequence: Sequence, models: Mapping[str, HandModel], path: str
) -> Reconstruction:
    """The truth of a sequence with one hand, from the arrays of the file at `path`.

    Raises:
      InputError: it is no ground truth, or that of another sequence.
    """
    missing = [key for key in _KEYS if key not in held]
    if missing:
        raise InputError(f"{path} is no ground truth of a sequence: it lacks {', '.join(missing)}")
    if len(held["object_to_world"]) != len(sequence):
        raise InputError(
            f"{path} has {len(held['object_to_world'])} frames but the sequence {sequence.name} "
            f"has {len(sequence)}; they belong to different sequences"
        )
    if len(sequence.hands) != 1:
        raise InputError(f"{path} tells of one hand but {sequence.name} has {len(sequence.hands)}")
    (side,) = sequence.hands
    everywhere = np.ones(len(sequence), bool)
    pose = held["hand_pose_axis_angle"].reshape(len(sequence), -1, 3)
    if pose.shape[1] != len(models[side].joints):
        raise InputError(
            f"{path} has poses of {pose.shape[1]} joints but hand model {models[side].name} has "
            f"{len(models[side].joints)}; name the model that they were made with"
        )
    return Reconstruction(
        name=sequence.name,
        hands={side: moving_hand(models[side], pose, held["hand_trans"], None, everywhere)},
        object=MovingObject(
            Mesh(held["object_vertices"].astype(np.float64), held["object_faces"]),
            held["object_to_world"],
            everywhere,
        ),
        intrinsics=sequence.intrinsics.astype(np.float64),
        world_to_camera=sequence.world_to_camera.astype(np.float64),
        size=sequence.size,
    )
