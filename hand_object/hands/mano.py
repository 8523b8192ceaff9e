"""MANO from the user's own file; nothing of it is stored here.

`MANO_RIGHT.pkl` and `MANO_LEFT.pkl` come from https://mano.is.tue.mpg.de under MANO's license
(research only). A known fault of the left file, version 1.2, is repaired: the x part of its shape
blend shapes has the sign of the right hand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hand_object.hands.model import HandModel, check
from hand_object.restricted_pickle import dense, read_pickle
from training.errors import InputError

PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
NAMES = (
    "wrist",
    *(f"{f}{i}" for f in ("index", "middle", "pinky", "ring", "thumb") for i in "123"),
)
ORDER = (
    0,
    13,
    14,
    15,
    1,
    2,
    3,
    4,
    5,
    6,
    10,
    11,
    12,
    7,
    8,
    9,
)  # thumb before index, ring before pinky
TIPS = {"right": (745, 317, 444, 556, 673), "left": (745, 317, 445, 556, 673)}
_KEYS = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")


def read_mano(path: Path, side: str, *, flat: bool = True, tips=None) -> HandModel:
    """A MANO pickle as a hand model.

    Args:
      path: the user's file.
      side: `right` or `left`, which the file must be of.
      flat: a pose of zeros is the flat hand; otherwise the mean pose of the file is added.
      tips: vertices of the five finger tips; None takes those of most data sets.

    Raises:
      InputError: the file is not MANO's, is of the other side, or asks for code.
    """
    held = read_pickle(path)
    missing = [key for key in _KEYS if not isinstance(held, dict) or key not in held]
    if missing:
        raise InputError(f"{path} is no MANO file: it lacks {', '.join(missing)}")
    template = dense(held["v_template"]).astype(np.float64)
    shape_dirs = np.moveaxis(dense(held["shapedirs"]).astype(np.float64), 2, 0)
    pose_dirs = np.moveaxis(dense(held["posedirs"]).astype(np.float64), 2, 0)
    regressor = dense(held["J_regressor"]).astype(np.float64)
    weights = dense(held["weights"])
    joints = regressor @ template
    if (joints[4, 0] < joints[0, 0]) != (side == "right"):
        raise InputError(f"{path} is a hand of the other side, not a {side} one; check the paths")
    if side == "left" and left_shape_sign_is_wrong(template, shape_dirs):
        shape_dirs = shape_dirs * np.array([-1.0, 1, 1])
    chosen = list(tips or TIPS[side])
    mean = np.zeros((16, 3))
    if not flat:
        mean[1:] = dense(held["hands_mean"]).reshape(15, 3)
    parts = {
        "template": template,
        "weights": weights,
        "joints": joints,
        "tips": template[chosen],
        "tip_weights": weights[chosen],
        "shape_dirs": shape_dirs,
        "joint_dirs": np.einsum("jv,sva->sja", regressor, shape_dirs),
        "tip_dirs": shape_dirs[:, chosen],
        "pose_dirs": pose_dirs,
        "tip_pose_dirs": pose_dirs[:, chosen],
        "pose_mean": mean,
    }
    model = HandModel(
        **{key: np.ascontiguousarray(part, np.float32) for key, part in parts.items()},
        faces=dense(held["f"]).astype(np.int32),
        parents=PARENTS,
        joint_names=NAMES,
        order=ORDER,
        shape_names=tuple(f"beta{k}" for k in range(len(shape_dirs))),
        side=side,
        name=f"mano_{side}",
        license="MANO, research only; not to be passed on",
    )
    check(model)
    return model


def left_shape_sign_is_wrong(template: np.ndarray, shape_dirs: np.ndarray) -> bool:
    """Whether the first shape number makes a left hand shorter where it makes it thicker.

    It is the size of the hand, so that it stretches the template by one sign along all axes; with
    the fault, it shrinks the fingers' direction x and stretches the two others.
    """
    centered = template - template.mean(axis=0)
    stretch = np.sum(centered * shape_dirs[0], axis=0) / np.sum(centered**2, axis=0)
    return bool(stretch[0] * (stretch[1] + stretch[2]) < 0)
