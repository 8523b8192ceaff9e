"""Motion as one .npz of named arrays, with a card that says what each is.

Of each hand SIDE: `SIDE_joints` [T, 21, 3] in the order of `joint_names`, `SIDE_vertices`
[T, V, 3], `SIDE_faces`, the model's own `SIDE_pose` [T, J, 3], `SIDE_translation`, `SIDE_shape`,
`SIDE_tree` (names of the J joints), `SIDE_model`, `SIDE_valid` [T]. Of the object:
`object_to_world` [T, 4, 4], `object_vertices`, `object_faces`, `object_valid`. Of the camera:
`intrinsics` and `world_to_camera`, `image_size`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hand_object.reconstruction import JOINTS_21, Reconstruction

CARD = (
    "Meters and radians. The world is that of the sequence, centered on its bounding sphere. Poses "
    "are axis-angles of joints relative to their parents, joint 0 the whole hand; the model's mean "
    "pose is included. object_to_world maps object_vertices to the world (columns are points). "
    "Cameras are OpenCV's: x right, y down, z forward; centers of pixels are whole numbers. Rows "
    "where valid is False hold no observation."
)


def trajectories(found: Reconstruction) -> dict[str, np.ndarray]:
    """The arrays of the file."""
    held: dict[str, np.ndarray] = {
        "card": np.array(CARD),
        "name": np.array(found.name),
        "joint_names": np.array(JOINTS_21),
        "frames_per_second": np.array(found.rate),
        "intrinsics": found.intrinsics,
        "world_to_camera": found.world_to_camera,
        "image_size": np.array(found.size),
    }
    for side, hand in found.hands.items():
        skin = np.stack([hand.vertices(frame) for frame in range(len(found))])
        held |= {
            f"{side}_joints": hand.joints.astype(np.float32),
            f"{side}_vertices": skin.astype(np.float32),
            f"{side}_faces": hand.mesh.faces.astype(np.int32),
            f"{side}_pose": hand.pose.astype(np.float32),
            f"{side}_translation": hand.translation.astype(np.float32),
            f"{side}_shape": hand.shape,
            f"{side}_tree": np.array(hand.joint_names),
            f"{side}_model": np.array(hand.model),
            f"{side}_valid": hand.valid,
        }
    if found.object is not None:
        held |= {
            "object_to_world": found.object.to_world,
            "object_vertices": found.object.mesh.vertices.astype(np.float32),
            "object_faces": found.object.mesh.faces.astype(np.int32),
            "object_valid": found.object.valid,
        }
    return held


def write_npz(path: Path, found: Reconstruction) -> None:
    """Writes the arrays, compressed."""
    with path.open("wb") as file:
        np.savez_compressed(file, **trajectories(found))  # pyright: ignore[reportArgumentType]
