"""Contact zones of any hand model, by rule: where fingers and palm touch what they hold.

A vertex is of a finger tip where it moves mostly with the last joint of the finger, and of the palm
where it moves mostly with the wrist and lies beyond a third of the way to the knuckles. Both must
face the palm's side. Lists of vertices of published data sets are not used: they are of one model.
"""

from __future__ import annotations

import numpy as np

from hand_object.hands.chirality import MIDDLE, palm_direction, rest_joints
from hand_object.hands.mesh import vertex_normals
from hand_object.hands.model import FINGERS, HandModel

ZONES = (*(f"{finger}_tip" for finger in FINGERS), "palm")


def contact_zones(model: HandModel) -> dict[str, np.ndarray]:
    """Vertex numbers (int32, ascending) of each of `ZONES`."""
    template = np.asarray(model.template)
    joints, owner = rest_joints(model), np.argmax(np.asarray(model.weights), axis=1)
    normals = vertex_normals(template, np.asarray(model.faces))
    palm = palm_direction(joints, model.side)
    zones = {}
    for finger, name in enumerate(FINGERS):
        last = model.order[3 + 3 * finger]
        bone = joints[4 + 4 * finger] - joints[3 + 4 * finger]
        inner = _inner(bone, palm) if name != "thumb" else _thumb_inner(joints, palm)
        facing = normals @ inner > 0
        zones[f"{name}_tip"] = np.flatnonzero((owner == last) & facing).astype(np.int32)
    ahead = joints[MIDDLE] - joints[0]
    share = (template - joints[0]) @ ahead / (ahead @ ahead)
    facing = normals @ palm > 0.3
    zones["palm"] = np.flatnonzero((owner == 0) & facing & (share > 1 / 3)).astype(np.int32)
    return zones


def _inner(bone: np.ndarray, palm: np.ndarray) -> np.ndarray:
    """The palm's direction as seen from a bone: at right angles to it, or nearly its own."""
    inner = palm - bone * (palm @ bone) / (bone @ bone)
    return inner / np.linalg.norm(inner)


def _thumb_inner(joints: np.ndarray, palm: np.ndarray) -> np.ndarray:
    """The ball of the thumb looks at the tips of the fingers and to the palm's side."""
    bone = joints[4] - joints[3]
    toward = joints[[8, 12]].mean(axis=0) - joints[4]
    return _inner(bone, palm + toward / np.linalg.norm(toward))
