"""`Reconstruction`: hands and object as meshes that move, whatever they came from.

Trained fields and ground truth have the same form, so that metrics, exports and pictures know one
thing only. All lengths are meters in the world of the sequence, arrays are numpy. Letters:
T frames, V vertices, F faces, J joints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np

from hand_object.hands.model import HandModel
from hand_object.hands.skinning import pose_hand
from hand_object.meshing import Mesh

JOINTS_21 = (
    "wrist",
    *(
        f"{finger}_{joint}"
        for finger in ("thumb", "index", "middle", "ring", "pinky")
        for joint in ("1", "2", "3", "tip")
    ),
)
_pose = jax.jit(pose_hand)


@dataclass(frozen=True)
class MovingHand:
    """A hand by linear blend skinning: vertex = sum_j weight_j transform_j rest vertex.

    Attributes:
      mesh: in the rest pose.
      weights: [V, J], rows that sum to 1.
      rest_joints: [J, 3].
      parents: of each joint, -1 of the first.
      joint_names: of the J joints of the tree.
      transforms: [T, J, 4, 4] rest -> world.
      joints: [T, 21, 3] in the order of `JOINTS_21`.
      pose, translation: [T, J, 3] axis-angles (rad) and [T, 3], as the hand model takes them.
      shape: [S].
      valid: [T] False where the hand is not there.
      model: name of the hand model.
    """

    mesh: Mesh
    weights: np.ndarray
    rest_joints: np.ndarray
    parents: tuple[int, ...]
    joint_names: tuple[str, ...]
    transforms: np.ndarray
    joints: np.ndarray
    pose: np.ndarray
    translation: np.ndarray
    shape: np.ndarray
    valid: np.ndarray
    model: str

    def vertices(self, frame: int) -> np.ndarray:
        """[V, 3] in the world."""
        blend = np.einsum("vj,jab->vab", self.weights, self.transforms[frame, :, :3])
        return np.einsum("vab,vb->va", blend[:, :, :3], self.mesh.vertices) + blend[:, :, 3]


@dataclass(frozen=True)
class MovingObject:
    """A rigid object: mesh in its own frame (meters), to_world [T, 4, 4] rigid, valid [T]."""

    mesh: Mesh
    to_world: np.ndarray
    valid: np.ndarray

    def vertices(self, frame: int) -> np.ndarray:
        """[V, 3] in the world."""
        return self.mesh.vertices @ self.to_world[frame, :3, :3].T + self.to_world[frame, :3, 3]


@dataclass(frozen=True)
class Reconstruction:
    """What was found, or what is true.

    Attributes:
      name: of the sequence.
      hands: by side.
      object: None where there is none.
      intrinsics: [T, 3, 3] for pictures of `size`.
      world_to_camera: [T, 4, 4] of OpenCV cameras.
      size: (height, width) of the pictures.
      rate: frames a second.
    """

    name: str
    hands: Mapping[str, MovingHand]
    object: MovingObject | None
    intrinsics: np.ndarray
    world_to_camera: np.ndarray
    size: tuple[int, int]
    rate: float = 30.0

    def __len__(self) -> int:
        return len(self.world_to_camera)

    def parts(self, frame: int) -> dict[str, tuple[np.ndarray, Mesh]]:
        """World vertices [V, 3] and mesh of what is there in a frame, hands first."""
        there = {
            side: (hand.vertices(frame), hand.mesh)
            for side, hand in self.hands.items()
            if hand.valid[frame]
        }
        if self.object is not None and self.object.valid[frame]:
            there["object"] = (self.object.vertices(frame), self.object.mesh)
        return there


def moving_hand(
    model: HandModel,
    pose: np.ndarray,
    translation: np.ndarray,
    shape: np.ndarray | None,
    valid: np.ndarray,
    surface: tuple[Mesh, np.ndarray] | None = None,
) -> MovingHand:
    """A hand of a model in T poses.

    Args:
      pose, translation: [T, J, 3] and [T, 3].
      shape: [S], or None of the template.
      surface: rest mesh and its skinning weights [V, J]; None: the model's own skin. Pose blend
        shapes of a model move its joints' skin only where `pose_hand` is asked, not here.
    """
    # A model without shape numbers may come with those of another model (HOLD writes 10 zeros).
    fits = shape is not None and len(shape) == model.shape_size
    used = np.asarray(shape if fits else np.zeros(model.shape_size), np.float32)
    posed = _pose(model, np.float32(pose), np.float32(translation), used)

    def shaped(points, directions) -> np.ndarray:
        return np.asarray(points, np.float64) + np.einsum("s,sva->va", used, np.asarray(directions))

    if surface is None:
        skin = shaped(model.template, model.shape_dirs)
        surface = Mesh(skin, np.asarray(model.faces)), np.asarray(model.weights, np.float64)
    mesh, weights = surface
    return MovingHand(
        mesh=mesh,
        weights=weights / weights.sum(axis=1, keepdims=True),
        rest_joints=shaped(model.joints, model.joint_dirs),
        parents=model.parents,
        joint_names=model.joint_names,
        transforms=np.asarray(posed.transforms, np.float64),
        joints=np.asarray(posed.joints, np.float64),
        pose=np.asarray(pose) + np.asarray(model.pose_mean),
        translation=np.asarray(translation),
        shape=used,
        valid=np.asarray(valid, bool),
        model=model.name,
    )
