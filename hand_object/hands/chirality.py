"""Left or right: of a model, of 21 joints, and of a pose.

Three directions of a hand tell its side: forward (wrist to the middle knuckle), across (knuckle of
the little finger to that of the index) and the palm's, toward which fingers bend. Across x forward
points out of the palm of a right hand and into the palm of a left one. Joints are in the field's
order, 21 of them: wrist, then thumb, index, middle, ring, pinky, base to tip.
"""

from __future__ import annotations

import numpy as np

from hand_object.hands.mesh import signed_volume
from hand_object.hands.model import HandModel

INDEX, MIDDLE, RING, PINKY = 5, 9, 13, 17  # knuckles


def palm_direction(joints: np.ndarray, side: str) -> np.ndarray:
    """[..., 3] unit, out of the palm, of joints [..., 21, 3] of a hand of a known side."""
    forward = joints[..., MIDDLE, :] - joints[..., 0, :]
    across = joints[..., INDEX, :] - joints[..., PINKY, :]
    normal = np.cross(across, forward) * (1 if side == "right" else -1)
    return normal / np.linalg.norm(normal, axis=-1, keepdims=True)


def curl(joints: np.ndarray, side: str) -> np.ndarray:
    """[...] mean rad by which four fingers bend toward the palm; negative: over the back.

    The bend of a finger is that of its last bone against its first one, about the axis across the
    palm that its side gives; and of the first bone against the palm.
    """
    palm = palm_direction(joints, side)
    bends = []
    for knuckle in (INDEX, MIDDLE, RING, PINKY):
        first = joints[..., knuckle, :] - joints[..., 0, :]
        last = joints[..., knuckle + 3, :] - joints[..., knuckle + 2, :]
        first = first / np.linalg.norm(first, axis=-1, keepdims=True)
        toward = np.sum(last * palm, axis=-1)
        ahead = np.sum(last * first, axis=-1)
        bends.append(np.arctan2(toward, ahead))
    # Beyond 180 degrees a fist would read as bent backward.
    bent = np.where(np.array(bends) < -2.5, np.array(bends) + 2 * np.pi, bends)
    return np.mean(bent, axis=0)


def side_of_joints(joints: np.ndarray) -> str:
    """The side for which fingers bend toward the palm, of joints [T, 21, 3] or [21, 3]."""
    return "right" if np.mean(curl(joints, "right")) > 0 else "left"


def side_of_thumb(joints: np.ndarray) -> str:
    """The side for which the thumb's tip lies before the palm, of joints [21, 3] of a flat hand.

    Fingers of a rest pose may be straight, or bent back a little; its thumb never is.
    """
    offset = joints[4] - joints[[INDEX, MIDDLE, RING, PINKY]].mean(axis=0)
    return "right" if offset @ palm_direction(joints, "right") > 0 else "left"


def model_faults(model: HandModel) -> list[str]:
    """What contradicts the side that a model says it has; empty of a sound one."""
    faults = []
    if signed_volume(np.asarray(model.template), np.asarray(model.faces)) < 0:
        faults.append(
            f"faces of hand model {model.name} look inward, as those of a mirrored hand do; "
            "reverse the corners of each face"
        )
    if side_of_thumb(rest_joints(model)) != model.side:
        faults.append(
            f"hand model {model.name} says that it is a {model.side} hand, but its thumb lies "
            "as that of the other side; mirror it or change its side"
        )
    return faults


def rest_joints(model: HandModel) -> np.ndarray:
    """[21, 3] of the rest pose."""
    listed = np.asarray(model.joints)[list(model.order)]
    fingers = listed[1:].reshape(5, 3, 3)
    fingers = np.concatenate([fingers, np.asarray(model.tips)[:, None]], axis=1)
    return np.concatenate([listed[:1], fingers.reshape(20, 3)])
