"""What a hand model is: one form for MANO, for models of plain skinning and for parametric ones.

All lengths are meters in the frame of the model. Joints form a tree that is listed from the root;
joint 0 is the wrist, and the hand turns about it. A vertex of the posed hand is

    sum_j weight_j G_j (template + shape . shape_dirs + (R - I) . pose_dirs)

(SMPL and MANO: Romero et al. 2017, section 3). Everything that depends on shape is linear in it,
joints and finger tips too, so that a regressor is applied once, when a model is read.

Letters: V vertices, J joints, S shape numbers, P = 9 (J - 1) pose numbers; S and P may be 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import numpy as np

from training.errors import InputError

FINGERS = ("thumb", "index", "middle", "ring", "pinky")
SIDES = ("right", "left")

Array = np.ndarray | jax.Array


@dataclass(frozen=True)
class HandModel:
    """A pytree: its arrays are arguments of compiled functions, the rest is static.

    Attributes:
      template: [V, 3] in the rest pose.
      faces: [F, 3] int32, outward by the right-hand rule.
      weights: [V, J] rows that sum to 1.
      joints: [J, 3] in the rest pose.
      tips: [5, 3] of thumb, index, middle, ring, pinky; points of the skin.
      tip_weights: [5, J].
      shape_dirs, joint_dirs, tip_dirs: [S, V, 3], [S, J, 3], [S, 5, 3] per unit of shape.
      pose_dirs, tip_pose_dirs: [P, V, 3], [P, 5, 3] per unit of R - I, row-major.
      pose_mean: [J, 3] axis-angle that is added to a pose; zeros where a model has none.
      parents: of each joint, -1 of the first.
      joint_names, shape_names: of the joints and of the shape numbers.
      order: joints of wrist, then three of each finger, wrist to tip, in the order of `FINGERS`.
      side: `right` or `left`.
      name, license: what it is and under which terms it may be used.
    """

    template: Array
    faces: Array
    weights: Array
    joints: Array
    tips: Array
    tip_weights: Array
    shape_dirs: Array
    joint_dirs: Array
    tip_dirs: Array
    pose_dirs: Array
    tip_pose_dirs: Array
    pose_mean: Array
    parents: tuple[int, ...]
    joint_names: tuple[str, ...]
    order: tuple[int, ...]
    shape_names: tuple[str, ...]
    side: str
    name: str
    license: str

    @property
    def shape_size(self) -> int:
        return self.shape_dirs.shape[0]


_STATIC = ["parents", "joint_names", "order", "shape_names", "side", "name", "license"]
_ARRAYS = [field for field in HandModel.__dataclass_fields__ if field not in _STATIC]
jax.tree_util.register_dataclass(HandModel, data_fields=_ARRAYS, meta_fields=_STATIC)


def plain_model(
    template: np.ndarray,
    faces: np.ndarray,
    weights: np.ndarray,
    joints: np.ndarray,
    tips: np.ndarray,
    tip_weights: np.ndarray,
    *,
    parents: tuple[int, ...],
    joint_names: tuple[str, ...],
    order: tuple[int, ...],
    side: str,
    name: str,
    license: str,
    shape_dirs: np.ndarray | None = None,
    joint_dirs: np.ndarray | None = None,
    tip_dirs: np.ndarray | None = None,
    shape_names: tuple[str, ...] = (),
) -> HandModel:
    """A checked model without pose blend shapes; arrays become float32 and int32.

    Raises:
      InputError: sizes do not fit together, weights do not sum to 1, or the tree is no tree.
    """
    vertices, count = len(template), len(joints)
    blank = np.zeros((0, 3))
    model = HandModel(
        template=_real(template),
        faces=np.asarray(faces, np.int32),
        weights=_real(weights),
        joints=_real(joints),
        tips=_real(tips),
        tip_weights=_real(tip_weights),
        shape_dirs=_real(_or_none(shape_dirs, vertices)),
        joint_dirs=_real(_or_none(joint_dirs, count)),
        tip_dirs=_real(_or_none(tip_dirs, len(FINGERS))),
        pose_dirs=_real(np.broadcast_to(blank[:, None], (0, vertices, 3))),
        tip_pose_dirs=_real(np.broadcast_to(blank[:, None], (0, len(FINGERS), 3))),
        pose_mean=np.zeros((count, 3), np.float32),
        parents=tuple(int(parent) for parent in parents),
        joint_names=tuple(str(joint) for joint in joint_names),
        order=tuple(order),
        shape_names=tuple(shape_names),
        side=side,
        name=name,
        license=license,
    )
    check(model)
    return model


def check(model: HandModel) -> None:
    """Raises InputError where the parts of a model do not fit together."""
    vertices, joints = len(model.template), len(model.joints)
    wanted = {
        "template": (vertices, 3),
        "weights": (vertices, joints),
        "joints": (joints, 3),
        "tips": (5, 3),
        "tip_weights": (5, joints),
        "shape_dirs": (model.shape_size, vertices, 3),
        "joint_dirs": (model.shape_size, joints, 3),
        "tip_dirs": (model.shape_size, 5, 3),
    }
    for key, shape in wanted.items():
        found = np.shape(getattr(model, key))
        if found != shape:
            raise InputError(f"hand model {model.name}: {key} is {found}, {shape} was expected")
    if model.side not in SIDES:
        raise InputError(f"hand model {model.name}: side {model.side!r} is neither right nor left")
    tree = enumerate(model.parents)
    if len(model.parents) != joints or any(
        parent >= joint or (parent < 0) != (joint == 0) for joint, parent in tree
    ):
        raise InputError(f"hand model {model.name}: parents are no tree listed from the wrist")
    if np.abs(np.asarray(model.weights).sum(axis=1) - 1).max() > 1e-3:
        raise InputError(f"hand model {model.name}: skinning weights of a vertex do not sum to 1")
    if np.min(model.faces) < 0 or np.max(model.faces) >= vertices:
        raise InputError(f"hand model {model.name}: a face names a vertex that is not there")
    if len(model.order) != 16 or model.order[0] != 0:
        raise InputError(f"hand model {model.name}: `order` needs the wrist and 15 finger joints")


def mirrored(model: HandModel) -> HandModel:
    """The hand of the other side: x becomes -x and faces turn around.

    A pose (axis-angle) of the other hand has the same first number and both others negated.
    """
    if model.pose_dirs.shape[0]:
        raise InputError(f"hand model {model.name} has pose blend shapes; read the other file")
    flip = np.array([-1, 1, 1], np.float32)
    turned = {
        key: (np.asarray(getattr(model, key)) * flip).astype(np.float32)
        for key in ("template", "joints", "tips", "shape_dirs", "joint_dirs", "tip_dirs")
    }
    other = SIDES[1 - SIDES.index(model.side)]
    faces = np.ascontiguousarray(np.asarray(model.faces)[:, ::-1])
    return replace(model, faces=faces, side=other, **turned)


def mirrored_pose(pose: np.ndarray) -> np.ndarray:
    """Axis-angles [..., 3] of the same gesture of the other hand."""
    return pose * np.array([1, -1, -1], pose.dtype)


def _real(array) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)


def _or_none(dirs: np.ndarray | None, rows: int) -> np.ndarray:
    return np.zeros((0, rows, 3)) if dirs is None else dirs
